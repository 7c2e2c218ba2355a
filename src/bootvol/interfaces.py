"""The plugin contract: what image sources, block backends and identity services provide.

A plugin is found by entry point (``bootvol.sources``, ``bootvol.backends``,
``bootvol.identities``, ``bootvol.hypervisors``).  The entry point loads a small descriptor
(:class:`SourcePlugin`, :class:`BackendPlugin`, :class:`IdentityPlugin`, :class:`HypervisorPlugin`);
its factory is called once when the daemon starts, and may import the driver's library only then.
A backend's factory is called in a thread of its own: where the factory hangs, the daemon works with
the other backends, calls it again while the reactor runs, and takes the backend when it returns.

Rules that hold for every method here:

* it is called in the reactor's thread and must not block it: blocking work goes through
  :attr:`PluginContext.threads`;
* it is a coroutine that awaits Deferreds, and it may be cancelled at any await; it then raises
  CancelledError when nothing of it goes on any more, in a thread or elsewhere
  (:meth:`bootvol.threads.Threads.run` does so), and what it had opened is closed;
* it raises what its docstring names; anything else counts as a defect of the plugin;
* a volume's name is text of letters, digits and ``-``, at most 64 characters, unique for ever.

``bootvol.testing`` has a contract suite for each interface: a plugin is right when it passes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import attrs
from pydantic import BaseModel
from zope.interface import Attribute, Interface

from bootvol.checks import Mistake
from bootvol.model import Caller, Connection, Disk, Extent, Image, Machine
from bootvol.threads import Threads


class IImageStream(Interface):
    """The bytes of one image, pulled in order by one reader."""

    size: int | None = Attribute("Bytes from the start of the image to its end; None if unknown.")
    offset: int = Attribute("Where in the image this stream began, in bytes from its start.")
    validator: str | None = Attribute(
        "Changes whenever the image's bytes do (an ETag, say); None if the source cannot tell."
    )

    async def read_into(target: memoryview) -> int:
        """Fill ``target`` with the bytes that come next.

        The reader is the backpressure: while nobody awaits this, nothing is fetched beyond a
        small bounded remainder.  Not to be called twice at once.

        :param target: writable memory, which stays the caller's.
        :returns: the number of bytes, which is ``len(target)`` but at the end of the image;
            0 when there are no more.
        :raises bootvol.errors.ImageTruncated: the image ended before its stated size.
        :raises bootvol.errors.SourceFailed: the source broke off.
        """

    async def close() -> None:
        """Let go of file and connection.  Idempotent."""


class ISparse(Interface):
    """Optional for a volume's reader, and with :meth:`ISparseStream.skip` for an image's stream.

    A provider knows, without reading, where zeros are.  The core neither reads nor writes them.
    """

    async def extents(offset: int, length: int) -> Sequence[Extent]:
        """Tell where zeros are.  Quick at any length, and bounded in memory.

        Extents follow one another from ``offset`` on, in any number, of any length.  They may end
        before the range does: the core asks again for the rest; the last one may reach beyond.
        Data may be told of what is zero; zeros are told only of what a read at this moment would
        give as zeros.

        :param offset: bytes from the start of the volume or image.
        :param length: bytes, at least 1; the range ends within the volume or image.
        :returns: at least one extent.
        :raises bootvol.errors.BackendFailed: the device failed, or the reader is closed.
        :raises bootvol.errors.SourceFailed: the source failed, or the stream is closed.
        """


class ISparseStream(ISparse):
    """Optional for an image's stream of known size that knows where zeros are."""

    def skip(length: int) -> None:
        """Pass over bytes that :meth:`ISparse.extents` told to be zeros, without reading them.

        The next read gives the bytes after them.  Does not block.  Not called while a read is
        under way.

        :param length: bytes; at most those up to the image's end.
        """


class IFileStream(Interface):
    """What a stream provides, too, whose image is one whole file on this machine, as it is."""

    def fileno() -> int:
        """Return the file's descriptor, open for reading until the stream is closed.

        It stays the stream's: nobody else closes it, moves its position or changes its flags.

        :raises bootvol.errors.SourceFailed: the stream has been closed.
        """

    async def check() -> None:
        """See that the file has not been written to since the stream was opened.

        :raises bootvol.errors.SourceFailed: it has, so that what was read of it may be neither what
            it held before nor what it holds now.
        """


class ILocatedStream(Interface):
    """What a stream provides, too, whose image may lie where volumes do."""

    location: str | None = Attribute(
        "A URL of where exactly these bytes lie, never to change; None if the source does not know."
        "  In Ceph it is as Glance states it: rbd://FSID/POOL/IMAGE/SNAPSHOT, all percent-encoded."
    )


class IOpenEndedStream(IImageStream):
    """What a stream may provide whose source cannot always tell the image's end from a break."""

    proven: bool = Attribute(
        "Whether the end that was reached is known to be the image's; True until it is reached."
    )


class IImageSource(Interface):
    """Where images come from."""

    name: str = Attribute("The name that the operator gave this source.")

    async def images(caller: Caller) -> Sequence[Image]:
        """List the images that ``caller`` may use, sorted by id.

        A source that cannot know them all (URLs) lists none.

        :raises bootvol.errors.SourceFailed: the source does not answer.
        """

    async def find(caller: Caller, reference: str) -> Image:
        """Find the image that ``reference`` means to this source.

        :param reference: an id or a URL, as a client sent it: hostile until proven otherwise.
        :raises bootvol.errors.ImageNotFound: it means nothing here; another source may know it.
        :raises bootvol.errors.InvalidImageRef: it is meant for this source but is not allowed.
        :raises bootvol.errors.ImageNotReady: the source does not have all of it yet.
        :raises bootvol.errors.ImageUnusable: the source does not let anybody use it.
        :raises bootvol.errors.UnsupportedFormat: it is known to be in a format that is not read.
        :raises bootvol.errors.Unauthorized: the source has a say of its own about callers, and does
            not know this one by :attr:`bootvol.model.Caller.token`.
        :raises bootvol.errors.Forbidden: it does, and the caller may not have the image.
        :raises bootvol.errors.SourceFailed: the source does not answer.
        :raises bootvol.errors.SourceRefused: it will not give the image out.
        """

    async def open(image: Image, offset: int = 0, validator: str | None = None) -> IImageStream:
        """Open an image that :meth:`find` returned, perhaps hours or a restart ago.

        There is no caller any more; that one may have the image was settled when it was found.

        :param offset: where the stream should begin, in bytes from the image's start.  A source
            that cannot begin there, or whose image is not the one of ``validator`` any more,
            begins at 0, and says so in the stream's ``offset``.
        :param validator: of the stream that was read up to ``offset``; None goes with offset 0.
        :raises bootvol.errors.ImageNotFound: it is no longer there.
        :raises bootvol.errors.SourceFailed: the source does not answer.
        """


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


class IClosable(Interface):
    """What a plugin of any kind provides, too, that holds on to something while the daemon runs."""

    async def close() -> None:
        """Let go of everything: called when the daemon ends, and nothing else is under way.

        It must come to an end whatever the plugin's service does.
        """


class IReloadable(Interface):
    """Optional interface of a plugin of any kind: takes new settings while the daemon runs."""

    async def reload(settings: Any) -> None:
        """Replace the settings.  Runs when the operator sends SIGHUP.

        Failed or cancelled, the plugin goes on with the settings that it had.

        :param settings: an instance of the descriptor's ``settings``.
        :raises bootvol.errors.ConfigurationError: if the new settings cannot be used.
        """


class IHypervisor(Interface):
    """Runs servers (virtual machines) that outlive the daemon, whatever becomes of that.

    A server's name is as a volume's.  The core never lets two calls for one server run at once but
    for :meth:`console`.
    """

    name: str = Attribute("The name that the operator gave this hypervisor.")

    async def start(server: str, machine: Machine) -> None:
        """Start a server with its disks plugged in.  Idempotent: one that runs is left as it is.

        Cancelled or failed, it leaves what :meth:`stop` takes away.

        :raises bootvol.errors.HypervisorFailed: it does not start.
        """

    async def stop(server: str) -> None:
        """End a server at once, as pulling the plug does, and forget it.  Idempotent.

        When it returns, nothing of the server holds any disk.

        :raises bootvol.errors.HypervisorFailed: it may still run.
        """

    async def running() -> Collection[str]:
        """Return the names of the servers that run; one whose guest has turned it off does not.

        :raises bootvol.errors.HypervisorFailed: it cannot be told.
        """

    async def attach(server: str, disk: Disk) -> None:
        """Plug a disk into a running server.  Idempotent for the same disk.

        Cancelled or failed, it leaves what :meth:`detach` takes away.

        :raises bootvol.errors.HypervisorFailed: the server does not run, or does not take it.
        """

    async def detach(server: str, device: str) -> None:
        """Unplug a disk.  Idempotent; a server that does not run holds none.

        When it returns, the server neither reads nor writes the disk any more.

        :param device: as in :class:`bootvol.model.Disk`.
        :raises bootvol.errors.HypervisorFailed: the guest does not let go of it; the disk may still
            be in use.
        """

    async def console(server: str, length: int) -> bytes:
        """Return the last bytes of what a server has written to its serial console.

        Also of one that its guest has turned off; empty for one that never was.

        :param length: at most so many bytes.
        :raises bootvol.errors.HypervisorFailed: it cannot be read.
        """


class IPoweringHypervisor(IHypervisor):
    """A hypervisor that turns servers off and keeps them: for what clients call stop and reboot."""

    async def power_off(server: str, ask: bool) -> None:
        """Turn a server off; :meth:`start` turns the server on again.  Idempotent.

        When this returns, nothing of the server holds any disk; its console is still there.

        Cancelled or failed, it leaves a server that runs or does not; another call ends that.

        :param ask: whether the guest is asked first to shut down.  A guest that has not done so in
            the time that the operator gives guests loses its power.
        :raises bootvol.errors.HypervisorFailed: it may still run.
        """


class IConfiguringHypervisor(IHypervisor):
    """A hypervisor that gives guests :attr:`bootvol.model.Machine.files`.

    They are on a drive that a guest can only read, in a file system that guests know without more
    (ISO 9660 or VFAT) with the label ``config-2``, from the moment :meth:`start` begins to boot
    until the server is stopped.
    """


class IIdentity(Interface):
    """Says who a token belongs to.

    Where people log in through bootvol itself it provides :class:`bootvol.login.ILogin`, too.
    """

    async def authenticate(token: str) -> Caller:
        """Return whom ``token`` speaks for.

        :param token: as a client sent it: hostile until proven otherwise.
        :returns: with the token in it, if that is one which image sources may be shown.
        :raises bootvol.errors.Unauthorized: it is not, or no longer, valid.
        :raises bootvol.errors.IdentityUnavailable: that cannot be told for now.
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


@attrs.frozen
class PluginContext:
    """What the daemon lends to a plugin.

    :ivar reactor: provides IReactorTime, IReactorTCP and IReactorFromThreads, among others.  Its
        seconds are for what lasts: nobody can set them, and they are no time of the calendar.
    :ivar threads: for blocking calls; this plugin's own, so that a call that never returns keeps
        nobody else waiting.
    :ivar name: what the operator calls this instance.
    :ivar now: tells the seconds since 1970, by a clock that may be set at any moment.
    """

    reactor: Any
    threads: Threads
    name: str
    now: Callable[[], float] = time.time


#: Checks the machine for what an instance of the plugin's ``settings`` names: yields each fault.
#: Blocks; changes nothing; runs before ``factory``, at the start of the daemon and in
#: ``bootvol check-config --machine``.  See :mod:`bootvol.checks`.
Check = Callable[[Any], Iterable[Mistake]]


@attrs.frozen
class SourcePlugin:
    """Describes a kind of image source.  ``factory`` gets an instance of ``settings``.

    ``name``, ``plugin``, ``concurrent`` and ``bandwidth_mib`` of its table are the core's.
    """

    settings: type[BaseModel]
    factory: Callable[[Any, PluginContext], IImageSource]
    check: Check | None = None


@attrs.frozen
class BackendPlugin:
    """Describes a kind of block backend.  ``factory`` gets an instance of ``settings``.

    ``name``, ``plugin`` and ``concurrent`` of its table are the core's.
    """

    settings: type[BaseModel]
    factory: Callable[[Any, PluginContext], IBlockBackend]
    check: Check | None = None


@attrs.frozen
class IdentityPlugin:
    """Describes a kind of identity service.  ``factory`` gets an instance of ``settings``."""

    settings: type[BaseModel]
    factory: Callable[[Any, PluginContext], IIdentity]
    check: Check | None = None


@attrs.frozen
class HypervisorPlugin:
    """Describes a kind of hypervisor.  ``factory`` gets an instance of ``settings``."""

    settings: type[BaseModel]
    factory: Callable[[Any, PluginContext], IHypervisor]
    check: Check | None = None
