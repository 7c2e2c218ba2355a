"""Run alembic on the connection from :meth:`Database.upgrade`."""

from alembic import context

from bootvol.store.schema import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
