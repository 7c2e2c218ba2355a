"""The collection of all tables, the types of their columns, and the cleaning of texts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, cast

from sqlalchemy import JSON, DateTime, Dialect, MetaData, String, Text
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
