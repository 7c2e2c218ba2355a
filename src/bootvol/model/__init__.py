"""Frozen values without behaviour, used by all other packages.

Fields with ``bytes`` in their name are in bytes, fields with ``gib`` in GiB. Times are aware UTC
datetimes.
"""

from __future__ import annotations

from bootvol.model.callers import Caller, KeyPair, PublicKey
from bootvol.model.disks import Adoption, StoredDisk
from bootvol.model.failures import Failure
from bootvol.model.holds import Connector, Hold, HoldState, NewHold
from bootvol.model.image_records import (
    WHOLE,
    ImageFetch,
    ImageMember,
    ImageRecord,
    ImageStatus,
    MemberStatus,
    StoredBytes,
    Visibility,
)
from bootvol.model.images import LONGEST_PROPERTIES, Digest, Extent, Image
from bootvol.model.imports import (
    ENCRYPTED,
    FOREIGN_BYTES,
    SHORT_IMAGE,
    STARTED_OVER,
    UNEXPECTED_FORMAT,
    UNIDENTIFIED,
    CachedImage,
    CacheUse,
    Caution,
    Checkpoint,
    DiskIndex,
    Import,
    Phase,
    content_of,
    family_of,
)
from bootvol.model.overview import Daemon, Place, StoreUsage
from bootvol.model.replacements import Replacement
from bootvol.model.routes import LocalRoute, RbdRoute, Route
from bootvol.model.servers import ROOT, Disk, Flavor, Machine, NewDisk, NewServer, Server
from bootvol.model.volume_uploads import NewVolumeImage, VolumeUpload
from bootvol.model.volumes import (
    GIB,
    LARGEST_ID,
    Attachment,
    ConnectionInfo,
    Consumer,
    NewSnapshot,
    NewVolume,
    QosSpecs,
    Snapshot,
    Transfer,
    Usage,
    Volume,
    VolumeType,
    new_uuid,
)

__all__ = [
    "ENCRYPTED",
    "FOREIGN_BYTES",
    "GIB",
    "LARGEST_ID",
    "LONGEST_PROPERTIES",
    "ROOT",
    "SHORT_IMAGE",
    "STARTED_OVER",
    "UNEXPECTED_FORMAT",
    "UNIDENTIFIED",
    "WHOLE",
    "Adoption",
    "Attachment",
    "CacheUse",
    "CachedImage",
    "Caller",
    "Caution",
    "Checkpoint",
    "ConnectionInfo",
    "Connector",
    "Consumer",
    "Daemon",
    "Digest",
    "Disk",
    "DiskIndex",
    "Extent",
    "Failure",
    "Flavor",
    "Hold",
    "HoldState",
    "Image",
    "ImageFetch",
    "ImageMember",
    "ImageRecord",
    "ImageStatus",
    "Import",
    "KeyPair",
    "LocalRoute",
    "Machine",
    "MemberStatus",
    "NewDisk",
    "NewHold",
    "NewServer",
    "NewSnapshot",
    "NewVolume",
    "NewVolumeImage",
    "Phase",
    "Place",
    "PublicKey",
    "QosSpecs",
    "RbdRoute",
    "Replacement",
    "Route",
    "Server",
    "Snapshot",
    "StoreUsage",
    "StoredBytes",
    "StoredDisk",
    "Transfer",
    "Usage",
    "Visibility",
    "Volume",
    "VolumeType",
    "VolumeUpload",
    "content_of",
    "family_of",
    "new_uuid",
]
