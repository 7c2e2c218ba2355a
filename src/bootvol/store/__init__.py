"""What is remembered: SQLAlchemy Core on SQLite or PostgreSQL.

The modules of tables hold plain functions on an open connection; a use case composes several of
them into one transaction and runs it with :class:`bootvol.store.database.Database`.
"""
