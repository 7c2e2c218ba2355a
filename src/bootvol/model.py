"""The values that everything else speaks of: frozen, without behaviour of their own.

Sizes are in bytes where a field says ``bytes`` and in GiB where it says ``gib``; times are
aware UTC datetimes.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import uuid4

import attrs

from bootvol.errors import ErrorReport
from bootvol.lifecycle import Status

GIB: Final = 1024**3

#: The largest id that a database may ever have given.
LARGEST_ID: Final = 2**31 - 1

#: The disk that a server boots from (HP Bootable Volume API, section 2.2: "/dev/vda").
ROOT: Final = "vda"


def new_uuid() -> str:
    """Return a uuid that nothing else has."""
    return str(uuid4())


@attrs.frozen
class Caller:
    """Who asks, as the identity plugin says.

    :ivar token: what the caller has shown, for sources that have their own say about who may have
        an image; None where it is for bootvol's eyes only.  It is kept nowhere.
    :ivar request_id: the id of the request that the caller asks by, for the log; identity plugins
        leave it out.
    """

    user: str
    tenant: str
    roles: frozenset[str] = frozenset()
    token: str | None = attrs.field(default=None, repr=False, eq=False)
    request_id: str = attrs.field(default="", eq=False)


@attrs.frozen
class Digest:
    """A digest: what a source states is of an algorithm of :mod:`hashlib`; in lower-case hex."""

    algorithm: str
    value: str


@attrs.frozen
class Extent:
    """Consecutive bytes of a volume or an image.

    :ivar length: bytes, at least 1.
    :ivar zero: all of them read as zeros; where it is False they may hold anything.
    """

    length: int
    zero: bool


@attrs.frozen
class Image:
    """One image of one source, as the source described it when it was asked.

    :ivar format: ``raw``, ``qcow2`` and so on; None where the source does not state it, and the
        image's own bytes tell.
    :ivar size_bytes: length of what the source sends; None where it does not know.
    :ivar min_disk_gib: the smallest volume that the image's maker allows.
    :ivar digest: of what the source sends, if it states one.
    :ivar validator: as of a stream of the image, where the source knows it without opening one.
    :ivar disk_bytes: length of the disk in it, where it is in a container and the source knows.
    :ivar changed_at: seconds since 1970 when its bytes became what they are; None if unknown.
    """

    id: str
    source: str
    name: str
    format: str | None = None
    size_bytes: int | None = None
    min_disk_gib: int = 0
    digest: Digest | None = None
    validator: str | None = None
    disk_bytes: int | None = None
    changed_at: float | None = None


@attrs.frozen
class Attachment:
    """A volume's place in a server (a virtual machine).

    :ivar server_id: the server's; digits where bootvol runs it itself.
    :ivar device: as the caller named it, with or without ``/dev/``.
    :ivar delete_on_termination: whether the volume goes with the server.
    :ivar volume_uuid: the volume's uuid, where the attachment was read from the database.
    :ivar server_uuid: the server's uuid; None where others run the server.
    """

    volume_id: int
    server_id: str
    device: str
    delete_on_termination: bool = False
    volume_uuid: str = ""
    server_uuid: str | None = None

    @property
    def disk(self) -> str:
        """The device's name without ``/dev/``."""
        return self.device.removeprefix("/dev/")


@attrs.frozen
class Volume:
    """A volume as its row says.

    :ivar name: what backends know it by; unique for ever, so never the id (an id may come
        again with a new database).
    :ivar image_id: the image it was created from; a volume is bootable if and only if it has one.
    :ivar snapshot_id: the snapshot it was made from, which may be gone by now.
    :ivar volume_type: the name of the type it was made as, which may be gone by now.
    :ivar error: why the status is ``error``, or why the last attaching or detaching failed.
    :ivar uuid: another id, by which later versions of the API know the volume.
    :ivar snapshot_uuid: the uuid of the snapshot it was made from.
    :ivar request_id: the id of the request that asked for the volume; empty if unknown.
    """

    id: int
    name: str
    tenant: str
    user: str
    size_gib: int
    status: Status
    created_at: datetime
    availability_zone: str
    backend: str
    image_id: str | None = None
    snapshot_id: int | None = None
    volume_type: str | None = None
    display_name: str | None = None
    display_description: str | None = None
    metadata: Mapping[str, str] = attrs.Factory(dict)
    attachments: tuple[Attachment, ...] = ()
    error: ErrorReport | None = None
    uuid: str = attrs.field(factory=new_uuid)
    snapshot_uuid: str | None = None
    request_id: str = ""

    @property
    def size_bytes(self) -> int:
        """The volume's size in bytes."""
        return self.size_gib * GIB


@attrs.frozen
class Snapshot:
    """What a volume held at one moment.

    :ivar name: of the hidden volume on the backend that holds it.
    :ivar volume_id: the volume it was made of, which may be gone by now.
    :ivar uuid: another id, by which later versions of the API know the snapshot.
    :ivar volume_uuid: the uuid of the volume.
    :ivar request_id: the id of the request that asked for the snapshot; empty if unknown.
    """

    id: int
    name: str
    tenant: str
    user: str
    volume_id: int
    size_gib: int
    status: Status
    created_at: datetime
    backend: str
    display_name: str | None = None
    display_description: str | None = None
    error: ErrorReport | None = None
    uuid: str = attrs.field(factory=new_uuid)
    volume_uuid: str = ""
    request_id: str = ""

    @property
    def size_bytes(self) -> int:
        """The snapshot's size in bytes."""
        return self.size_gib * GIB


@attrs.frozen
class Flavor:
    """How large a server may be asked for."""

    id: str
    name: str
    ram_mib: int
    cpus: int


@attrs.frozen
class Server:
    """A virtual machine that bootvol runs.

    :ivar name: what the hypervisor knows it by; unique for ever.
    :ivar uuid: another id, by which it may be addressed as well.
    :ivar flavor_id: the flavor's that was asked for; what it meant then follows.
    :ivar daemon: the one whose hypervisor runs it; None until one does.
    :ivar error: why the status is ``error``, or why the last stop, start or reboot failed.
    :ivar updated_at: when a caller last changed it; None if never.
    :ivar key: the key pair that its guest is given.
    :ivar user_data: what its guest is given, in base64.
    :ivar config_drive: whether the guest finds these, and more, on a config drive.
    :ivar volumes: the id and uuid of each of its volumes, where it was read from the database.
    :ivar request_id: the id of the request that asked for the server; empty if unknown.
    """

    id: int
    name: str
    uuid: str
    tenant: str
    user: str
    status: Status
    created_at: datetime
    display_name: str
    flavor_id: str
    memory_mib: int
    cpus: int
    daemon: str | None = None
    error: ErrorReport | None = None
    updated_at: datetime | None = None
    metadata: Mapping[str, str] = attrs.Factory(dict)
    key: PublicKey | None = None
    user_data: str | None = None
    config_drive: bool = False
    volumes: tuple[tuple[int, str], ...] = ()
    request_id: str = ""


@attrs.frozen
class PublicKey:
    """The public half of a key pair, in the form of OpenSSH."""

    name: str
    text: str


@attrs.frozen
class KeyPair:
    """A key pair of a user in a tenant; bootvol keeps its public half alone.

    :ivar fingerprint: MD5 of the key, in hex with colons, as Nova shows it.
    """

    tenant: str
    user: str
    name: str
    fingerprint: str
    public_key: str
    created_at: datetime
    id: int = 0


@attrs.frozen
class NewSnapshot:
    """What a caller asks for."""

    volume_id: int
    display_name: str | None = None
    display_description: str | None = None
    force: bool = False


@attrs.frozen
class NewDisk:
    """A volume that a new server should have: one that there is, or a new one.

    A new one is made of a snapshot, of an image, or of neither: then it is blank.

    :ivar device: empty is the next free name.
    :ivar size_gib: of the new one; None is the snapshot's.
    :ivar volume_type: of the new one; None is the default.
    """

    device: str
    volume_id: int | None = None
    snapshot_id: int | None = None
    size_gib: int | None = None
    delete_on_termination: bool = False
    image_ref: str | None = None
    volume_type: str | None = None


@attrs.frozen
class NewServer:
    """What a caller asks for."""

    display_name: str
    flavor_id: str
    disks: tuple[NewDisk, ...]
    metadata: Mapping[str, str] = attrs.Factory(dict)
    key_name: str | None = None
    user_data: str | None = None
    availability_zone: str | None = None


@attrs.frozen
class NewVolume:
    """What a caller asks for; everything else of a volume is the service's to say.

    :ivar size_gib: may be left out where there is a snapshot.
    :ivar volume_type: the name of a type; None leaves the backend to the service.
    """

    size_gib: int | None
    image_ref: str | None = None
    snapshot_id: int | None = None
    volume_type: str | None = None
    display_name: str | None = None
    display_description: str | None = None
    availability_zone: str | None = None
    metadata: Mapping[str, str] = attrs.Factory(dict)


@attrs.frozen
class Checkpoint:
    """A prefix of an image that is on the volume, and survives loss of power.

    :ivar offset: its length in bytes.
    :ivar digest: of its bytes, by the import's algorithm, in hex.
    :ivar validator: of the image that it is a prefix of, in the source's own words.
    """

    offset: int
    digest: str
    validator: str


class Phase(StrEnum):
    """Where an import stands, as its progress shows it."""

    QUEUED = "queued"
    WAITING = "waiting"
    ALLOCATING = "allocating"
    CLONING = "cloning"
    DOWNLOADING = "downloading"
    CONVERTING = "converting"
    RETRYING = "retrying"
    FINISHING = "finishing"
    VERIFYING = "verifying"
    DONE = "done"
    FAILED = "failed"


@attrs.frozen
class Caution:
    """Something about an import that people should know, though it did not fail.

    :ivar code: stands for this kind of warning, and never changes.
    """

    code: str
    message: str


#: Nothing in the image's first bytes is what disks begin with.
UNIDENTIFIED: Final = Caution(
    "unidentified-image",
    "Nothing tells that the image is a disk: no partition table, boot sector or file system is in"
    " it.",
)
#: As OpenWrt's images have it: gunzip warns of "trailing garbage" and ignores that.
FOREIGN_BYTES: Final = Caution(
    "foreign-bytes",
    "Bytes that are not compressed follow the compressed image. They are no part of the volume.",
)
STARTED_OVER: Final = Caution(
    "started-over",
    "The import could not go on where it was interrupted. It began again with the first byte.",
)


@attrs.frozen
class Import:
    """The filling of one volume from one image.

    :ivar attempt: how often it was started; 0 while it has not been.
    :ivar bytes_done: bytes of the image that are on the volume.
    :ivar bytes_per_second: mean rate of this attempt.
    :ivar content: stands for the image's bytes, if anything does: another import of the same needs
        no download of its own.
    :ivar cached: whether it is made from a golden volume; None until that is known.
    :ivar checkpoint: where another attempt may go on.
    :ivar durable_name: under which name on its backend the checkpoint's prefix lies, where that is
        not the volume's: another daemon, which may be stopped, had begun it.
    :ivar position: its place in line while it waits for a worker, from 1; None when it does not.
    :ivar warnings: what people should know of it.
    """

    volume_id: int
    image: Image
    phase: Phase = Phase.QUEUED
    bytes_done: int = 0
    bytes_total: int | None = None
    bytes_per_second: int = 0
    attempt: int = 0
    content: str | None = None
    cached: bool | None = None
    checkpoint: Checkpoint | None = None
    durable_name: str | None = None
    error: ErrorReport | None = None
    position: int | None = None
    warnings: tuple[Caution, ...] = ()


@attrs.frozen
class Golden:
    """A hidden volume that holds one image, to make others from.

    :ivar content: stands for the image's bytes: see :func:`bootvol.service.goldens.content_of`.
    :ivar size: of the disk in bytes; the volume is as many whole GiB as that needs.
    :ivar digest: of the disk, where one is known.
    :ivar hits: how many volumes were made from it.
    :ivar used_at: seconds since 1970 when it was last used.
    :ivar warnings: what people should know of the image.
    """

    name: str
    backend: str
    image_id: str
    content: str
    size: int
    digest: Digest | None
    hits: int
    used_at: float
    warnings: tuple[Caution, ...] = ()

    @property
    def volume_size(self) -> int:
        """The volume's own size in bytes."""
        return -(-self.size // GIB) * GIB


@attrs.frozen
class VolumeType:
    """A kind of volume that callers ask for by its name.

    :ivar extra_specs: what operators say of it; ``volume_backend_name`` names its backend.
    """

    id: int
    name: str
    extra_specs: Mapping[str, str]


@attrs.frozen
class Usage:
    """What a tenant has of that which quotas limit."""

    volumes: int
    gigabytes: int


@attrs.frozen
class Connection:
    """How a hypervisor on the backend's side reaches a volume.

    :ivar kind: ``file`` or ``block`` (``address`` is an absolute path); ``nbd`` (``address`` is a
        URI: ``nbd+unix:///NAME?socket=PATH`` or ``nbds://HOST:PORT/NAME``); ``rbd`` (``address`` is
        what QEMU takes for a file name: ``rbd:POOL/NAMESPACE/IMAGE:id=USER:conf=PATH``).
    """

    kind: str
    address: str


@attrs.frozen
class Disk:
    """A volume as a server sees it.

    :ivar device: the disk's name without ``/dev/``: ``vda`` is the one that a server boots from.
    """

    device: str
    connection: Connection


@attrs.frozen
class Machine:
    """What a server is made of.

    :ivar disks: the one that it boots from comes first.
    :ivar files: what its guest finds on a config drive, by path; without any there is no drive.
    """

    memory_mib: int
    cpus: int
    disks: tuple[Disk, ...]
    files: Mapping[str, bytes] = attrs.Factory(dict)
