"""Block backends, where volumes live."""

from __future__ import annotations

import attrs
from zope.interface import Attribute, Interface

from bootvol.model import Connection


class IVolumeWriter(Interface):
    """The one writer of one volume.  Offsets and lengths are multiples of the block size."""

    async def write(offset: int, data: memoryview) -> None:
        """Write ``data`` (bytes) at ``offset`` (bytes).

        Several writes may be under way at once, never to the same place.

        :param data: must not change until the write has ended.
        :raises bootvol.errors.NoSpace: the backend is full.
        :raises bootvol.errors.BackendFailed: the device failed.
        """

    async def zero(offset: int, length: int) -> None:
        """Make ``length`` bytes at ``offset`` read as zeros, giving their space back if it can.

        :raises bootvol.errors.BackendFailed: the device failed.
        """

    async def flush() -> None:
        """Return when every write that has ended survives loss of power.

        :raises bootvol.errors.BackendFailed: some of them will not.
        """

    async def close() -> None:
        """Let go of the device.  Idempotent; nothing else is under way when it is called."""


class IVolumeReader(Interface):
    """Reads a volume's bytes back."""

    async def read_into(offset: int, target: memoryview) -> None:
        """Fill all of ``target`` with the bytes at ``offset``.

        Offset and length are multiples of the block size.

        :param target: writable memory, which stays the caller's.
        :raises bootvol.errors.BackendFailed: the device failed.
        """

    async def close() -> None:
        """Let go of the device.  Idempotent; nothing else is under way when it is called."""


class IBlockBackend(Interface):
    """Where volumes live.  The core owns bytes, order, digests and retries; this, the device."""

    name: str = Attribute("The name that the operator gave this backend.")
    capabilities: Capabilities = Attribute("What this backend promises; the suite tests it.")

    async def allocate(volume: str, size: int) -> None:
        """Make the space for a volume.  Quick, and idempotent for the same name and size.

        Cancelled, it leaves either nothing or what another call completes.

        :param size: bytes, a multiple of the block size.
        :raises bootvol.errors.NoSpace: there is no room.
        :raises bootvol.errors.BackendFailed: the name is taken by something of another size, or
            the device failed.
        """

    async def open_writer(volume: str) -> IVolumeWriter:
        """Open an allocated volume for writing.

        :raises bootvol.errors.BackendFailed: it is not there, or not what was allocated.
        """

    async def open_reader(volume: str) -> IVolumeReader:
        """Open an allocated volume for reading.

        :raises bootvol.errors.BackendFailed: it is not there, or not what was allocated.
        """

    async def delete(volume: str) -> None:
        """Give the volume's space back.  Idempotent: a volume that is not there is deleted.

        :raises bootvol.errors.VolumeInUse: a guest or another program has it open, as far as the
            backend can tell.
        :raises bootvol.errors.BackendFailed: it is still there.
        """

    async def connection(volume: str) -> Connection:
        """Tell how a hypervisor reaches an allocated volume.

        :raises bootvol.errors.BackendFailed: it is not there.
        """


class ICloningBackend(Interface):
    """What a backend provides, too, that declares :attr:`Capabilities.clones`."""

    async def clone(source: str, target: str, size: int) -> None:
        """Make a volume that holds what another one does: quickly at any size, without a copy.

        Neither depends on the other afterwards: each may be written and deleted.  When it returns
        the new one survives loss of power.  Cancelled or failed, it leaves what
        :meth:`IBlockBackend.delete` of ``target`` takes away.

        :param source: an allocated volume; nobody writes to it meanwhile.
        :param target: is not allocated.
        :param size: of the new volume in bytes, a multiple of the block size: where it is smaller
            than the source the rest is left out, where it is larger that reads as zeros.
        :raises bootvol.errors.NoSpace: there is no room.
        :raises bootvol.errors.BackendFailed: ``source`` is not there, ``target`` is, or the device
            failed.
        """


class ISharingBackend(Interface):
    """What a backend provides, too, that declares :attr:`Capabilities.shares`."""

    async def share(file: int, volume: str, size: int) -> int | None:
        """Make a volume that begins with what a file holds: by sharing its blocks, without a copy.

        Neither depends on the other afterwards: each may be written and deleted.  The volume holds
        the file as it was at one moment of the call, and zeros after that.  When it returns, that
        survives loss of power.  Cancelled or failed, it leaves what :meth:`IBlockBackend.delete`
        of ``volume`` takes away.

        :param file: the descriptor of a regular file, open for reading; stays the caller's.
        :param volume: is not allocated.
        :param size: of the new volume in bytes, a multiple of the block size.
        :returns: how many bytes the file had at that moment; None where its blocks cannot be shared
            (it lies elsewhere, say) or are more than ``size``: then there is no such volume.
        :raises bootvol.errors.NoSpace: there is no room.
        :raises bootvol.errors.BackendFailed: ``volume`` is there, or the device failed.
        """


class IImageCloningBackend(Interface):
    """What a backend provides, too, that declares :attr:`Capabilities.clones_images`."""

    async def clone_image(location: str, volume: str, size: int) -> int | None:
        """Make a volume that begins with an image that lies beside it: quickly, without a copy.

        What is written to the volume does not change the image; it holds zeros after that.  When
        it returns, the volume survives loss of power.  Cancelled or failed, it leaves what
        :meth:`IBlockBackend.delete` of ``volume`` takes away.

        :param location: as in :class:`ILocatedStream`, of any scheme: only what the operator lets
            volumes be made of is cloned, since a source may have it from a tenant.
        :param volume: is not allocated.
        :param size: of the new volume in bytes, a multiple of the block size.
        :returns: how many bytes the image has; None where it cannot be cloned (it lies elsewhere,
            say) or has more than ``size``: then there is no such volume.
        :raises bootvol.errors.NoSpace: there is no room.
        :raises bootvol.errors.BackendFailed: ``volume`` is there, or the device failed.
        """


class IGuardedBackend(Interface):
    """What a backend provides, too, that can tell whether somebody else has a volume open."""

    async def check_unused(volume: str) -> None:
        """See that no guest and no other program has a volume open.

        What the core itself has open, by readers of this backend, does not count.  The core asks
        before it gives a volume away or makes a snapshot of one that should be at rest.

        :raises bootvol.errors.VolumeInUse: somebody has it open.
        :raises bootvol.errors.BackendFailed: the volume is not there, or nothing can be told.
        """


class IIdentifiedBackend(Interface):
    """What a backend provides, too, whose store has an identity of its own.

    A path or a name may lead to another store one day: a disk that is not mounted, a new group of
    the old name, another host.  The daemon remembers the identity in its database, with the name of
    the backend.
    """

    async def identity() -> str:
        """Return what tells the store from every other one; a store without it is given one.

        The same from every host and after every restart.  The core asks when the daemon starts, and
        every few seconds while a call has raised :class:`bootvol.errors.WrongStore`: once this
        method answers, what waits for the store goes on.

        :returns: 1 to 255 printable characters of ASCII.
        :raises bootvol.errors.BackendFailed: the store is not there.
        """

    def expect(identity: str) -> None:
        """Use no other store than that one from now on.

        Every later call of any method raises :class:`bootvol.errors.WrongStore` while the store is
        another one or has no identity, and reads, writes and deletes nothing there.

        Called right after the factory, in the same thread, if the core remembers an identity; else
        in the reactor's thread after :meth:`identity`.  It may look at the store, but not for long.

        :raises bootvol.errors.ConfigurationError: the store is another one already; says so to the
            operator, with the place, both identities and the remedy.
        """


@attrs.frozen
class Capabilities:
    """What a backend declares of itself.

    :ivar reads_zero_when_new: a newly allocated volume reads as zeros, so holes of an image
        need no writing.  Where it is False the core zeroes every hole and the tail.
    :ivar block_size: bytes; every offset and length is a multiple of it.  A power of two, at
        most 64 KiB.
    :ivar parallel_writes: how many writes under way at once the backend makes use of.
    :ivar clones: the backend provides :class:`ICloningBackend`.
    :ivar shares: the backend provides :class:`ISharingBackend`.
    :ivar clones_images: the backend provides :class:`IImageCloningBackend`.
    """

    reads_zero_when_new: bool
    block_size: int = 512
    parallel_writes: int = 1
    clones: bool = False
    shares: bool = False
    clones_images: bool = False
