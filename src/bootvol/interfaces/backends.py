"""Interfaces of block backends, where volumes are stored."""

from __future__ import annotations

import attrs
from zope.interface import Attribute, Interface

from bootvol.model import ConnectionInfo, Route


class IVolumeWriter(Interface):
    """The only writer of a volume.  Offsets and lengths are multiples of the block size."""

    async def write(offset: int, data: memoryview) -> None:
        """Write ``data`` (bytes) at ``offset`` (bytes).

        Several writes may run at once, but never to overlapping ranges.

        :param data: bytes to write.  The core does not change them until the write has ended.
        :raises bootvol.errors.NoSpace: if the backend is full.
        :raises bootvol.errors.BackendFailed: if the device fails.
        """

    async def zero(offset: int, length: int) -> None:
        """Make ``length`` bytes at ``offset`` read as zeros, and free their space if possible.

        :raises bootvol.errors.BackendFailed: if the device fails.
        """

    async def flush() -> None:
        """Make every write that has ended durable: the bytes survive a loss of power.

        :raises bootvol.errors.BackendFailed: if any of these writes may be lost.
        """

    async def close() -> None:
        """Release the device.  Idempotent.  No other call runs when the core calls this method."""


class IVolumeReader(Interface):
    """A reader of a volume's bytes."""

    async def read_into(offset: int, target: memoryview) -> None:
        """Fill all of ``target`` with the bytes at ``offset``.

        Offset and length are multiples of the block size.

        :param target: writable memory, owned by the caller.
        :raises bootvol.errors.BackendFailed: if the device fails.
        """

    async def close() -> None:
        """Release the device.  Idempotent.  No other call runs when the core calls this method."""


class IBlockBackend(Interface):
    """A place where volumes are stored.

    The core handles bytes, order, digests and retries.  The backend handles the device.
    """

    name: str = Attribute("The operator's name for this backend.")
    capabilities: Capabilities = Attribute(
        "The declared abilities.  The contract suite tests them."
    )

    async def allocate(volume: str, size: int) -> None:
        """Reserve the space of a volume.  Quick.  Idempotent for the same name and size.

        A cancelled call leaves either nothing, or an incomplete volume.  Another call completes the
        volume.

        :param size: volume size in bytes, a multiple of the block size.
        :raises bootvol.errors.NoSpace: if the backend has no room.
        :raises bootvol.errors.BackendFailed: if the name belongs to something of another size, or
            the device fails.
        """

    async def open_writer(volume: str) -> IVolumeWriter:
        """Open an allocated volume for writing.

        :raises bootvol.errors.BackendFailed: if the volume does not exist, or differs from the
            allocated one.
        """

    async def open_reader(volume: str) -> IVolumeReader:
        """Open an allocated volume for reading.

        :raises bootvol.errors.BackendFailed: if the volume does not exist, or differs from the
            allocated one.
        """

    async def delete(volume: str) -> None:
        """Delete a volume and free its space.  Idempotent: a missing volume counts as deleted.

        :raises bootvol.errors.VolumeInUse: if a guest or another program has the volume open, as
            far as the backend can tell.
        :raises bootvol.errors.BackendFailed: if the volume still exists.
        """

    async def connection(volume: str) -> ConnectionInfo:
        """Return how a hypervisor reaches an allocated volume.

        The core also calls this method before it deletes a finished volume, to notice a missing
        one.

        :raises bootvol.errors.VolumeMissing: if the volume does not exist.
        :raises bootvol.errors.BackendFailed: if the backend cannot tell.
        """


class ICloningBackend(Interface):
    """Optional interface of a backend that clones volumes (:attr:`Capabilities.clones`)."""

    async def clone(source: str, target: str, size: int, held: int = 0) -> None:
        """Create a volume with the content of another one, quickly at any size and without a copy.

        Afterwards the two volumes are independent: each may be written and deleted.  The new volume
        survives a loss of power when the call returns.  After a cancelled or failed call,
        :meth:`IBlockBackend.delete` of ``target`` removes the remains.

        :param source: an allocated volume.  Nobody writes to the source during the call.
        :param target: name of the new volume, not allocated yet.
        :param size: size of the new volume in bytes, a multiple of the block size.  A smaller size
            cuts the content off.  A larger size adds zeros after the content.
        :param held: the bytes that ``source`` must have at least.  Another program may have made
            the source smaller: zeros in place of the lost bytes would be wrong.
        :raises bootvol.errors.NoSpace: if the backend has no room.
        :raises bootvol.errors.VolumeCutOff: if ``source`` is smaller than ``held``.
        :raises bootvol.errors.BackendFailed: if ``source`` does not exist, ``target`` exists, or
            the device fails.
        """


class ISharingBackend(Interface):
    """Optional interface of a backend that reflinks files (:attr:`Capabilities.shares`)."""

    async def share(file: int, volume: str, size: int) -> int | None:
        """Create a volume that begins with the content of a file, by sharing the file's blocks.

        Afterwards the volume and the file are independent: each may be written and deleted.  The
        volume holds the file's content as of one moment of the call, followed by zeros.  The volume
        survives a loss of power when the call returns.  After a cancelled or failed call,
        :meth:`IBlockBackend.delete` of ``volume`` removes the remains.

        :param file: descriptor of a regular file, open for reading; owned by the caller.
        :param volume: name of the new volume, not allocated yet.
        :param size: size of the new volume in bytes, a multiple of the block size.
        :returns: the file's size in bytes at the moment of sharing; None if the backend cannot
            share the blocks (say, the file is on another file system) or the file is larger than
            ``size``.  After None the volume does not exist.
        :raises bootvol.errors.NoSpace: if the backend has no room.
        :raises bootvol.errors.BackendFailed: if ``volume`` exists, or the device fails.
        """


class IImageCloningBackend(Interface):
    """Optional interface of a backend that clones images (:attr:`Capabilities.clones_images`)."""

    async def clone_image(location: str, volume: str, size: int) -> int | None:
        """Create a volume from an image that is stored beside it, quickly and without a copy.

        The volume begins with the image, followed by zeros.  Writes to the volume do not change the
        image.  The volume survives a loss of power when the call returns.  After a cancelled or
        failed call, :meth:`IBlockBackend.delete` of ``volume`` removes the remains.

        :param location: URL as in :class:`ILocatedStream`, of any scheme.  A source may have the
            URL from a tenant.  So the backend clones only from places that the operator allows.
        :param volume: name of the new volume, not allocated yet.
        :param size: size of the new volume in bytes, a multiple of the block size.
        :returns: the image's size in bytes; None if the backend cannot clone the image (say,
            another cluster stores it) or the image is larger than ``size``.  After None the volume
            does not exist.
        :raises bootvol.errors.NoSpace: if the backend has no room.
        :raises bootvol.errors.BackendFailed: if ``volume`` exists, or the device fails.
        """


class IRoutingBackend(Interface):
    """Optional interface of a backend that tells hosts of other systems how to reach a volume.

    The core serves nothing on the route: the host opens the volume with tools of its own.
    """

    async def route(volume: str) -> Route:
        """Return how a host on the storage network reaches an allocated volume.

        A call of a user waits for the answer, so the call should be quick.  Idempotent.

        :returns: the route.  Another host, or for :class:`bootvol.model.LocalRoute` this one, reads
            and writes exactly the volume's bytes on the route, with nothing but the host's own
            configuration.
        :raises bootvol.errors.VolumeMissing: if the volume does not exist.
        :raises bootvol.errors.BackendFailed: if the backend cannot tell.
        """


class IGuardedBackend(Interface):
    """Optional interface of a backend that knows whether another program has a volume open."""

    async def check_unused(volume: str) -> None:
        """Check that no guest and no other program has a volume open.

        Readers that the core itself opened on this backend do not count.  The core calls this
        method before it gives a volume away, before a volume unplugged from a server counts as
        free, and before it makes a snapshot of a volume that should be at rest.

        :raises bootvol.errors.VolumeInUse: if a guest or another program has the volume open.
        :raises bootvol.errors.BackendFailed: if the volume does not exist, or the backend cannot
            tell.
        """


class ICountingBackend(Interface):
    """Optional interface of a backend whose system counts the openers of each volume."""

    async def check_closed(volume: str) -> None:
        """Check that no process of this machine has a volume open, without that process's help.

        A descriptor counts, and so do mapped memory and a message with a descriptor.  The core
        calls this method instead of :meth:`IGuardedBackend.check_unused` before a volume unplugged
        from a server counts as free.  The core then has the volume not open itself.

        :raises bootvol.errors.VolumeInUse: if a process has the volume open.
        :raises bootvol.errors.BackendFailed: if the volume does not exist, or the backend cannot
            tell.
        """


class IGrowingBackend(Interface):
    """Optional interface of a backend that makes volumes larger."""

    async def grow(volume: str, size: int) -> None:
        """Make an allocated volume larger; zeros follow the content.  Idempotent.

        The volume survives a loss of power with its new size when the call returns.  After a
        cancelled or failed call, the volume has its former size or the new one, with zeros after
        the content, and every method takes the volume.  A volume that is larger than ``size``
        stays as it is: the call may come late, from a daemon that has lost its claim.

        A guest may read and write the volume meanwhile, up to the former size.  The core tells the
        guest the new size after the call.

        :param volume: an allocated volume.
        :param size: the new size in bytes, a multiple of the block size.
        :raises bootvol.errors.NoSpace: if the backend has no room.
        :raises bootvol.errors.BackendFailed: if the volume does not exist, or the device fails.
        """


class IIdentifiedBackend(Interface):
    """Optional interface of a backend whose store has an identity of its own.

    A path or a name may lead to another store one day: the disk is not mounted, a new volume group
    has the old name, or the host is another one.  So the daemon keeps the identity in its database,
    with the backend's name; and with the host, if the backend is local (:class:`Capabilities`).
    """

    async def identity() -> str:
        """Return the unique identity of the store.  Give the store an identity if it has none.

        The identity is the same from every host and after every restart.  The core calls this
        method when the daemon starts.  After a call has raised :class:`bootvol.errors.WrongStore`
        or :class:`bootvol.errors.StoreUnusable`, the core calls this method every few seconds.
        After the first success, the jobs waiting for the store continue.

        :returns: 1 to 255 printable ASCII characters.
        :raises bootvol.errors.BackendFailed: if the store is missing or cannot be used.
        """

    def expect(identity: str) -> None:
        """Use only the store with this identity from now on.

        While the store has another identity or none, every later call of any method raises
        :class:`bootvol.errors.WrongStore`, and reads, writes and deletes nothing.

        If the core remembers an identity, the core calls this method right after the factory, in
        the factory's thread.  Otherwise the core calls this method in the reactor thread, after
        :meth:`identity`.  The method may look at the store, but only briefly.

        :raises bootvol.errors.ConfigurationError: if the store is already known to be another one.
            The message tells the operator the place, both identities and the remedy.
        """


@attrs.frozen
class Capabilities:
    """The declared abilities of a backend.

    :ivar reads_zero_when_new: whether a newly allocated volume reads as zeros.  If so, the core
        does not write the holes of an image.  Otherwise the core zeroes every hole and the tail.
    :ivar block_size: unit of all offsets and lengths in bytes: a power of two, at most 64 KiB.
    :ivar parallel_writes: number of concurrent writes that the backend benefits from.
    :ivar clones: whether the backend provides :class:`ICloningBackend`.
    :ivar shares: whether the backend provides :class:`ISharingBackend`.
    :ivar clones_images: whether the backend provides :class:`IImageCloningBackend`.
    :ivar local: whether only this host reaches the store: a disk of the machine, say.  If so, only
        the daemons of the volume's host work on a volume.  Otherwise every daemon with a backend of
        this name does, so all of them must have the same store.
    """

    reads_zero_when_new: bool
    block_size: int = 512
    parallel_writes: int = 1
    clones: bool = False
    shares: bool = False
    clones_images: bool = False
    local: bool = False
