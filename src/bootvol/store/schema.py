"""The tables.  ``migrations/`` turns earlier tables into these.  A test compares the two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    UniqueConstraint,
    false,
    true,
)

from bootvol.lifecycle import Kind
from bootvol.store import columns
from bootvol.store.columns import METADATA as METADATA
from bootvol.store.columns import CleanJson, CleanString, CleanText, UtcTime
from bootvol.store.copy_tables import replacements as replacements
from bootvol.store.copy_tables import volume_uploads as volume_uploads
from bootvol.store.disabled import disabled as disabled
from bootvol.store.failure_table import failures as failures
from bootvol.store.hold_table import holds as holds
from bootvol.store.last_writes import last_writes as last_writes
from bootvol.store.quota_tables import quotas as quotas
from bootvol.store.quota_tables import type_quotas as type_quotas

#: The newest migration.  The migration leaves the tables as they are here.
REVISION: Final = "0036"


volumes = Table(
    "volumes",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("name", CleanString(64), nullable=False, unique=True),
    # The volume's id for callers of Nova v2 and of Cinder.
    Column("uuid", CleanString(36)),
    Column("tenant", CleanString(255), nullable=False),
    Column("user", CleanString(255), nullable=False),
    Column("size_gib", Integer, nullable=False),
    # The new size while the volume becomes larger.
    Column("target_gib", Integer),
    Column("created_at", UtcTime, nullable=False),
    Column("updated_at", UtcTime),
    Column("availability_zone", CleanString(255), nullable=False),
    Column("backend", CleanString(64), nullable=False),
    columns.host(),
    Column("image_id", CleanText),
    # Without a foreign key, since the snapshot may be deleted first.
    Column("snapshot_id", Integer),
    Column("snapshot_uuid", CleanString(36)),
    # The volume that the data was copied from, likewise.
    Column("source_id", Integer, index=True),
    Column("source_uuid", CleanString(36)),
    # The disk that becomes the volume, until it has been taken over.
    Column("place", CleanString(255)),
    # The type's name, without a foreign key, too.
    Column("volume_type", CleanString(255)),
    # Whether servers may only read the volume; null until the owner has said so.
    Column("readonly", Boolean),
    # How the last move to another backend ended; null without a move.
    Column("moved", Boolean),
    Column("display_name", CleanString(255)),
    Column("display_description", CleanString(255)),
    Column("metadata", CleanJson, nullable=False),
    *columns.boot(),
    columns.finished(),
    columns.marked(),
    *columns.life(),
    Index(None, "tenant", "id"),
    Index(None, "status"),
    Index(None, "uuid", unique=True),
    # The id of a deleted volume must never come to mean another volume.
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
    # Without a foreign key, since the volume may be deleted first.
    Column("volume_id", Integer, nullable=False, index=True),
    Column("volume_uuid", CleanString(36)),
    Column("size_gib", Integer, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("updated_at", UtcTime),
    Column("backend", CleanString(64), nullable=False),
    columns.host(),
    # The disk that becomes the snapshot, likewise.
    Column("place", CleanString(255)),
    Column("display_name", CleanString(255)),
    Column("display_description", CleanString(255)),
    Column("metadata", CleanJson),
    *columns.boot(),
    columns.finished(),
    columns.marked(),
    # The progress that another program has reported, such as 80%.
    Column("progress", CleanString(8)),
    *columns.life(),
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
    # A copy of the requested key pair, since the pair may be deleted.
    Column("key_name", CleanString(255)),
    Column("public_key", CleanText),
    # In base64, as the caller sent the data.
    Column("user_data", CleanText),
    Column("config_drive", Boolean),
    # The daemon whose hypervisor runs the server.
    Column("daemon", CleanString(64)),
    *columns.life(),
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
    # The volume's tenant.  No two disks of a server have the same name.
    Column("tenant", CleanString(255), nullable=False),
    # As text, since others than bootvol may run the server.
    Column("server_id", CleanString(64), nullable=False),
    # The same server, if bootvol runs the server.
    Column("hosted", Integer, ForeignKey("servers.id"), index=True),
    # The device as the caller named the device; and the same name without "/dev/".
    Column("device", CleanString(32), nullable=False),
    Column("disk", CleanString(32), nullable=False),
    Column("delete_on_termination", Boolean, nullable=False),
    # The daemon that has the volume plugged in, or serves the volume; null if no daemon does.
    Column("daemon", CleanString(64)),
    # How the server reaches the volume; null for a direct open on the backend.
    Column("address_kind", CleanString(16)),
    Column("address", CleanText),
    # The attachment's id for callers of Cinder v3.
    Column("uuid", CleanString(36)),
    UniqueConstraint("tenant", "server_id", "disk"),
    Index(None, "uuid", unique=True),
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
    # The image's source.  Repeated here, since a source may have a limit.
    Column("source", CleanString(64), nullable=False),
    # Key of the image's bytes.  Two imports with the same key need only one download.
    Column("content", CleanString(64), index=True),
    # Whether a cached image of this content existed; null until known.
    Column("cached", Boolean),
    Column("phase", CleanString(32), nullable=False),
    Column("bytes_done", BigInteger, nullable=False),
    Column("bytes_total", BigInteger),
    Column("bytes_per_second", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    # The checkpoint from which another attempt may resume; null without a checkpoint.
    Column("durable_bytes", BigInteger),
    Column("durable_digest", CleanString(128)),
    Column("validator", CleanText),
    # Whether the volume behind the checkpoint is blank; null for rows of former versions.
    Column("durable_blank", Boolean),
    # The checkpoint's name on the backend, if other than the volume's: see strays.
    Column("durable_name", CleanString(64), index=True),
    # Warnings for people: a list of codes and messages.
    Column("warnings", CleanJson),
    # The error of the last failed attempt while the import waits for the next one.
    Column("failure", CleanJson),
    # The size of the image, packed or not, as its source stated the size last while the image came;
    # and the validator of the image with this size.
    Column("stated_size", BigInteger),
    Column("stated_validator", CleanText),
)

cached_images = Table(
    "goldens",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("name", CleanString(64), nullable=False, unique=True),
    Column("backend", CleanString(64), nullable=False),
    columns.host(),
    Column("image_id", CleanText, nullable=False),
    Column("content", CleanString(64), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("digest_algorithm", CleanString(32)),
    Column("digest", CleanString(128)),
    Column("state", CleanString(16), nullable=False),
    # The volume whose import makes the cached image; null after the making.
    Column("volume_id", Integer),
    Column("hits", Integer, nullable=False),
    Column("used_at", Float, nullable=False),
    # Warnings about the image, in the same form as those of imports.
    Column("warnings", CleanJson),
    Index(None, "backend", "content"),
)

# The index of a cached image's disk, for imports of similar images: see DiskIndex.
disk_indexes = Table(
    "disk_indexes",
    METADATA,
    Column(
        "cached_image",
        CleanString(64),
        ForeignKey("goldens.name", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("family", CleanString(64), nullable=False, index=True),
    Column("tenant", CleanString(255), nullable=False),
    Column("depth", Integer, nullable=False),
    Column("chunks", LargeBinary, nullable=False),
)

# Names on backends whose claims were lost: see bootvol.store.strays.
strays = Table(
    "strays",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("backend", CleanString(64), nullable=False),
    columns.host(),
    Column("name", CleanString(64), nullable=False, index=True),
    # The daemon that may make the stray anew; null if none can.
    Column("daemon", CleanString(64)),
    # When to delete the stray next (null: at once), and when the stray was first given out for
    # deletion, both in seconds since 1970.
    Column("due", Float),
    Column("since", Float),
)

# The identity that tells a backend's store from every other store, by the backend's name; and by
# the host, if only that host's daemons reach the store (otherwise the host is empty).
stores = Table(
    "stores",
    METADATA,
    Column("backend", CleanString(64), primary_key=True),
    Column("host", CleanString(64), primary_key=True, server_default=""),
    Column("identity", CleanString(255), nullable=False),
)

# The daemons, and their hosts.  A daemon runs until its lease ends, in seconds since 1970.
daemons = Table(
    "daemons",
    METADATA,
    Column("id", CleanString(64), primary_key=True),
    Column("host", CleanString(64), nullable=False),
    Column("lease_until", Float, nullable=False),
    # Whether the daemon has a hypervisor.
    Column("serves", Boolean, nullable=False, server_default=false()),
)

# The last claim of an import of each tenant: a number that grows with each claim.
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
    # The type's id for callers of Cinder v3.
    Column("uuid", CleanString(36)),
    Column("name", CleanString(255), nullable=False, unique=True),
    Column("description", CleanString(255)),
    Column("extra_specs", CleanJson, nullable=False),
    Column("is_public", Boolean, nullable=False, server_default=true()),
    # The uuid of the type's limits of speed.
    Column("qos", CleanString(36)),
    Index(None, "uuid", unique=True),
    sqlite_autoincrement=True,
)

# Limits of speed for the volumes of some types.
qos_specs = Table(
    "qos_specs",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("uuid", CleanString(36), nullable=False),
    Column("name", CleanString(255), nullable=False, unique=True),
    Column("consumer", CleanString(16), nullable=False),
    Column("specs", CleanJson, nullable=False),
    Index(None, "uuid", unique=True),
    sqlite_autoincrement=True,
)

# The tenants that may see and use a type that is not public.
type_access = Table(
    "type_access",
    METADATA,
    Column("type_id", Integer, ForeignKey("volume_types.id", ondelete="CASCADE"), primary_key=True),
    Column("tenant", CleanString(255), primary_key=True),
)

# The types of new volumes of tenants whose requests name no type.
default_types = Table(
    "default_types",
    METADATA,
    Column("tenant", CleanString(255), primary_key=True),
    Column("type_id", Integer, ForeignKey("volume_types.id", ondelete="CASCADE"), nullable=False),
)

# Offers of volumes to other tenants.  The taker shows a key; see bootvol.service.transfers.
transfers = Table(
    "transfers",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("uuid", CleanString(36), nullable=False, unique=True),
    Column(
        "volume_id",
        Integer,
        ForeignKey("volumes.id", ondelete="CASCADE"),
        nullable=False,
        unique=True,
    ),
    Column("tenant", CleanString(255), nullable=False),
    Column("name", CleanString(255)),
    Column("key_hash", CleanString(64), nullable=False),
    Column("created_at", UtcTime, nullable=False),
    # Whether the snapshots stay with the giver.
    Column("no_snapshots", Boolean, nullable=False, server_default=false()),
    Index(None, "tenant", "id"),
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

#: The table of each kind of object with a status.
LIVING: Final[Mapping[Kind, Table]] = {
    Kind.VOLUME: volumes,
    Kind.SNAPSHOT: snapshots,
    Kind.SERVER: servers,
}
