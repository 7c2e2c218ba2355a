"""The daemon's state in a database: SQLAlchemy Core on SQLite or PostgreSQL.

The modules of tables hold plain functions on an open connection.  A use case composes several of
these functions into one transaction.  :class:`bootvol.store.database.Database` runs the
transaction.
"""
