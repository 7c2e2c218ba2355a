"""The tables.  ``migrations/`` makes them of earlier ones; a test holds the two together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.types import TypeDecorator

from bootvol.lifecycle import Kind

_UNCLEAN: Final = re.compile("[\0\ud800-\udfff]")


class UtcTime(TypeDecorator[datetime]):
    """An aware UTC datetime; SQLite keeps none, so it is kept without its zone."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """Drop the zone, which is UTC."""
        return value.astimezone(UTC).replace(tzinfo=None) if value else None

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Put the zone back."""
        return value.replace(tzinfo=UTC) if value else None


class CleanString(TypeDecorator[str]):
    """Text of a bounded length, without what a database does not take: see :func:`clean`."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> Any:
        """Clean it."""
        return clean(value)


class CleanText(CleanString):
    """The same, of any length."""

    impl = Text
    cache_ok = True


class CleanJson(TypeDecorator[Any]):
    """JSON whose texts are clean."""

    impl = JSON
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        """Clean it."""
        return clean(value)


def clean(value: Any) -> Any:
    """Return text, or a structure with texts in it, without what a database does not take.

    PostgreSQL takes no zero character, and no database half of a pair of surrogates; nor has JSON
    that clients get any use for them.  Each of them becomes U+FFFD, the sign for what is unknown.
    """
    if isinstance(value, str):
        return _UNCLEAN.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, Mapping):
        return {clean(key): clean(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [clean(each) for each in value]
    return value


#: The newest of the migrations, after which the tables are as they are here.
REVISION: Final = "0011"

METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _life() -> list[Column[Any]]:
    """Return the columns of what has a status, and may be work."""
    return [
        Column("status", CleanString(32), nullable=False),
        Column("error_code", CleanString(64)),
        Column("error_message", CleanText),
        Column("error_retryable", Boolean),
        Column("error_remedy", CleanText),
        # Who works on it, and until when (seconds since 1970) it may be trusted to.
        Column("worker", CleanString(64)),
        Column("lease_until", Float),
        # The request that asked for it, for the log.
        Column("request_id", CleanString(64)),
    ]


volumes = Table(
    "volumes",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("name", CleanString(64), nullable=False, unique=True),
    # What callers of Nova v2 and of Cinder know the volume by.
    Column("uuid", CleanString(36)),
    Column("tenant", CleanString(255), nullable=False),
    Column("user", CleanString(255), nullable=False),
    Column("size_gib", Integer, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("availability_zone", CleanString(255), nullable=False),
    Column("backend", CleanString(64), nullable=False),
    Column("image_id", CleanText),
    # Without a reference: the snapshot may go first.
    Column("snapshot_id", Integer),
    Column("snapshot_uuid", CleanString(36)),
    # The type's name, and no reference either.
    Column("volume_type", CleanString(255)),
    Column("display_name", CleanString(255)),
    Column("display_description", CleanString(255)),
    Column("metadata", CleanJson, nullable=False),
    *_life(),
    Index(None, "tenant", "id"),
    Index(None, "status"),
    Index(None, "uuid", unique=True),
    # An id that was a deleted volume's must never come to mean another one.
    sqlite_autoincrement=True,
)

snapshots = Table(
    "snapshots",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("name", CleanString(64), nullable=False, unique=True),
    Column("uuid", CleanString(36)),
    Column("tenant", CleanString(255), nullable=False),
    Column("user", CleanString(255), nullable=False),
    # Without a reference: the volume may go first.
    Column("volume_id", Integer, nullable=False, index=True),
    Column("volume_uuid", CleanString(36)),
    Column("size_gib", Integer, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("backend", CleanString(64), nullable=False),
    Column("display_name", CleanString(255)),
    Column("display_description", CleanString(255)),
    *_life(),
    Index(None, "tenant", "id"),
    Index(None, "status"),
    Index(None, "uuid", unique=True),
    sqlite_autoincrement=True,
)

servers = Table(
    "servers",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("name", CleanString(64), nullable=False, unique=True),
    Column("uuid", CleanString(36), nullable=False, unique=True),
    Column("tenant", CleanString(255), nullable=False),
    Column("user", CleanString(255), nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("updated_at", UtcTime),
    Column("display_name", CleanString(255), nullable=False),
    Column("flavor_id", CleanString(64), nullable=False),
    Column("memory_mib", Integer, nullable=False),
    Column("cpus", Integer, nullable=False),
    Column("metadata", CleanJson),
    # The key pair that was asked for: a copy, since the pair may be deleted.
    Column("key_name", CleanString(255)),
    Column("public_key", CleanText),
    # In base64, as it was sent.
    Column("user_data", CleanText),
    Column("config_drive", Boolean),
    # The daemon whose hypervisor runs it.
    Column("daemon", CleanString(64)),
    *_life(),
    Index(None, "tenant", "id"),
    Index(None, "status"),
    sqlite_autoincrement=True,
)

attachments = Table(
    "attachments",
    METADATA,
    Column(
        "volume_id",
        Integer,
        ForeignKey("volumes.id"),
        primary_key=True,
        autoincrement=False,
    ),
    # The volume's tenant; no two disks of a server have one name.
    Column("tenant", CleanString(255), nullable=False),
    # As text: it may be a server that others run.
    Column("server_id", CleanString(64), nullable=False),
    # The same, where bootvol runs it.
    Column("hosted", Integer, ForeignKey("servers.id"), index=True),
    # As the caller named it, and without "/dev/".
    Column("device", CleanString(32), nullable=False),
    Column("disk", CleanString(32), nullable=False),
    Column("delete_on_termination", Boolean, nullable=False),
    # Which daemon has it plugged in, or serves it; null where that is nobody's concern.
    Column("daemon", CleanString(64)),
    # How the server reaches it, where that is not how it lies.
    Column("address_kind", CleanString(16)),
    Column("address", CleanText),
    UniqueConstraint("tenant", "server_id", "disk"),
)

imports = Table(
    "imports",
    METADATA,
    Column(
        "volume_id",
        Integer,
        ForeignKey("volumes.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("image", CleanJson, nullable=False),
    # The image's: here too, since it may have a limit.
    Column("source", CleanString(64), nullable=False),
    # Stands for the image's bytes; two imports with the same need only one download.
    Column("content", CleanString(64), index=True),
    # Whether there was a golden volume of that; null until it is known.
    Column("cached", Boolean),
    Column("phase", CleanString(32), nullable=False),
    Column("bytes_done", BigInteger, nullable=False),
    Column("bytes_total", BigInteger),
    Column("bytes_per_second", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    # Where another attempt may go on; null where it cannot.
    Column("durable_bytes", BigInteger),
    Column("durable_digest", CleanString(128)),
    Column("validator", CleanText),
    # Under which name on the backend, where that is not the volume's: see strays.
    Column("durable_name", CleanString(64), index=True),
    # What people should know: a list of codes and messages.
    Column("warnings", CleanJson),
)

goldens = Table(
    "goldens",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("name", CleanString(64), nullable=False, unique=True),
    Column("backend", CleanString(64), nullable=False),
    Column("image_id", CleanText, nullable=False),
    Column("content", CleanString(64), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("digest_algorithm", CleanString(32)),
    Column("digest", CleanString(128)),
    Column("state", CleanString(16), nullable=False),
    # Whose import makes it; null once it is made.
    Column("volume_id", Integer),
    Column("hits", Integer, nullable=False),
    Column("used_at", Float, nullable=False),
    # Of the image, as those of imports.
    Column("warnings", CleanJson),
    Index(None, "backend", "content"),
)

# Names on backends that claims were lost with; see bootvol.store.strays.
strays = Table(
    "strays",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("backend", CleanString(64), nullable=False),
    Column("name", CleanString(64), nullable=False, index=True),
    # Which daemon may make it anew; null where none can.
    Column("daemon", CleanString(64)),
    # When it is to be deleted next, null is at once, and when that was first seen to: seconds since
    # 1970.
    Column("due", Float),
    Column("since", Float),
)

# What tells the store of a backend from every other one, by the backend's name.
stores = Table(
    "stores",
    METADATA,
    Column("backend", CleanString(64), primary_key=True),
    Column("identity", CleanString(255), nullable=False),
)

# Which tenant had an import claimed when: a number that grows with each claim.
turns = Table(
    "turns",
    METADATA,
    Column("tenant", CleanString(255), primary_key=True),
    Column("last", BigInteger, nullable=False),
)

volume_types = Table(
    "volume_types",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("name", CleanString(255), nullable=False, unique=True),
    Column("extra_specs", CleanJson, nullable=False),
    sqlite_autoincrement=True,
)

keypairs = Table(
    "keypairs",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("tenant", CleanString(255), nullable=False),
    Column("user", CleanString(255), nullable=False),
    Column("name", CleanString(255), nullable=False),
    Column("fingerprint", CleanString(64), nullable=False),
    Column("public_key", CleanText, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    UniqueConstraint("tenant", "user", "name"),
    sqlite_autoincrement=True,
)

# What single tenants may have, where that is not the default.
quotas = Table(
    "quotas",
    METADATA,
    Column("tenant", CleanString(255), primary_key=True),
    Column("resource", CleanString(32), primary_key=True),
    Column("most", Integer, nullable=False),
)

#: Where each kind of thing that has a life is kept.
LIVING: Final[Mapping[Kind, Table]] = {
    Kind.VOLUME: volumes,
    Kind.SNAPSHOT: snapshots,
    Kind.SERVER: servers,
}
