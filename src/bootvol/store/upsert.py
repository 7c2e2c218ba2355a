"""Insert a row, or change the row that has the same key."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import sqlite


def put(
    connection: Connection, table: Table, key: Mapping[str, object], values: Mapping[str, object]
) -> None:
    """Set columns of the row with a key.  Add the row if no row has the key.

    :param key: the values of the primary key, by column.
    :param values: the values of other columns, or their expressions in SQL.
    """
    insert = sqlite.insert
    if connection.dialect.name == "postgresql":
        # Import late: the import takes 2 MiB, and most daemons use SQLite.
        from sqlalchemy.dialects import postgresql

        insert = postgresql.insert  # type: ignore[assignment]
    row = insert(table).values(**key, **values)
    connection.execute(
        row.on_conflict_do_update(
            index_elements=list(key), set_={name: row.excluded[name] for name in values}
        )
    )
