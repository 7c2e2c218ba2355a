"""The collection of all tables, their columns and the types of these, and the cleaning of texts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, cast

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    MetaData,
    String,
    Text,
    false,
)
from sqlalchemy.types import TypeDecorator

#: All tables.
METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_UNCLEAN: Final = re.compile("[\0\ud800-\udfff]")


class UtcTime(TypeDecorator[datetime]):
    """An aware UTC datetime, stored without its zone, since SQLite stores no zones."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Drop the zone, which is UTC."""
        return value.astimezone(UTC).replace(tzinfo=None) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Put the zone back."""
        return value.replace(tzinfo=UTC) if value else None


class CleanString(TypeDecorator[str]):
    """Text of a bounded length, without characters that a database refuses: see :func:`clean`."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Clean the value."""
        return cast("str | None", clean(value))


class CleanText(CleanString):
    """Text like :class:`CleanString`, of any length."""

    impl = Text
    cache_ok = True


class CleanJson(TypeDecorator[object]):
    """JSON with clean texts."""

    impl = JSON
    cache_ok = True

    def process_bind_param(self, value: object, dialect: Dialect) -> object:
        """Clean the value."""
        return clean(value)


def clean(value: Any) -> Any:
    """Return text, or a structure with texts, without the characters that a database refuses.

    PostgreSQL refuses the zero character.  Every database refuses half of a surrogate pair.  JSON
    for clients has no use for these characters, either.  Each becomes U+FFFD, the sign for an
    unknown character.
    """
    if isinstance(value, str):
        return _UNCLEAN.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, Mapping):
        return {clean(key): clean(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [clean(each) for each in value]
    return value


def life() -> list[Column[object]]:
    """Return the columns of rows with a status, which may be work for a worker."""
    return [
        Column("status", CleanString(32), nullable=False),
        Column("error_code", CleanString(64)),
        Column("error_message", CleanText),
        Column("error_retryable", Boolean),
        Column("error_remedy", CleanText),
        # The claim of a worker, and the end of the claim's lease in seconds since 1970.
        Column("worker", CleanString(64)),
        Column("lease_until", Float),
        # The id of the request that asked for the object, for the log.
        Column("request_id", CleanString(64)),
    ]


def host() -> Column[str]:
    """Return the column for the host whose daemons alone reach the data; empty for every host."""
    return Column("host", CleanString(64), nullable=False, server_default="")


def boot() -> list[Column[object]]:
    """Return the columns for what a server boots with: owners may change both."""
    return [
        Column("bootable", Boolean),
        # What the image of the data was: texts by name.
        Column("image_metadata", CleanJson),
    ]


def marked() -> Column[str]:
    """Return the column for what callers see as the status, until the next change of the status."""
    return Column("marked", CleanString(32))


def finished() -> Column[bool]:
    """Return the column that tells whether the backend must have the data.

    True from the end of the making until the deletion begins.
    """
    return Column("finished", Boolean, nullable=False, server_default=false())
