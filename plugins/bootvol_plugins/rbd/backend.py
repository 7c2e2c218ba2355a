"""The backend: the plugin contract's calls, made on the images of a pool."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from zope.interface import implementer

from bootvol.clocks import sleep
from bootvol.errors import BackendFailed, VolumeInUse
from bootvol.interfaces import (
    Capabilities,
    IAdoptingBackend,
    IBlockBackend,
    ICloningBackend,
    IClosable,
    IGrowingBackend,
    IGuardedBackend,
    IIdentifiedBackend,
    IImageCloningBackend,
    IMeasuredBackend,
    IRoutingBackend,
    ISnapshotAdoptingBackend,
    IVolumeReader,
    IVolumeWriter,
    Room,
)
from bootvol.model import ConnectionInfo, RbdRoute, StoredDisk
from bootvol.reactors import IReactor
from bootvol.threads import Shared
from bootvol_plugins.rbd import adoption
from bootvol_plugins.rbd.bindings import Bindings, Image
from bootvol_plugins.rbd.calls import Calls
from bootvol_plugins.rbd.cluster import Cluster, Pool
from bootvol_plugins.rbd.growth import grow
from bootvol_plugins.rbd.handles import OpenImage
from bootvol_plugins.rbd.images import Images, InUse
from bootvol_plugins.rbd.locations import Location
from bootvol_plugins.rbd.options import RbdOptions
from bootvol_plugins.rbd.routes import route

T = TypeVar("T")

#: A call consists of several operations. Silence for this many operation timeouts ends the call.
_OPERATIONS: Final = 5
#: Seconds between two attempts with an image that is in use.
_PAUSE: Final = 1.0
#: Seconds between two searches for the remains of deleted images. Another daemon may leave remains
#: at any time.
_SWEEP: Final = 3600.0


def declared(options: RbdOptions) -> Capabilities:
    """Return the capabilities of a backend with these settings."""
    return Capabilities(
        reads_zero_when_new=True,
        parallel_writes=4,
        clones=True,
        clones_images=bool(options.image_pools),
    )


@implementer(
    IBlockBackend,
    ICloningBackend,
    IImageCloningBackend,
    IIdentifiedBackend,
    IGuardedBackend,
    IRoutingBackend,
    IGrowingBackend,
    IMeasuredBackend,
    IAdoptingBackend,
    ISnapshotAdoptingBackend,
    IClosable,
)
class RbdBackend:
    """Images in a pool or in a namespace of the pool. Images take space when they are written.

    :param reactor: provides IReactorTime and IReactorFromThreads.
    """

    _log = Logger()

    def __init__(
        self, name: str, options: RbdOptions, bindings: Bindings, reactor: IReactor
    ) -> None:
        self.name = name
        self.capabilities = declared(options)
        self._options = options
        self._reactor = reactor
        calls = Calls(reactor, _OPERATIONS * options.timeout)
        self._cluster = Cluster(name, options, bindings, calls)
        self._next_sweep = reactor.seconds()
        self._sweeping: Shared[None] | None = None

    async def identity(self) -> str:
        """See :meth:`bootvol.interfaces.IIdentifiedBackend.identity`.

        The identity consists of the cluster's FSID, the pool's number and the namespace. A later
        pool of the same name has another number.
        """
        what = f"Backend {self.name} cannot be told from others"
        return await self._cluster.run(what, lambda pool, _: pool.store)

    def expect(self, identity: str) -> None:
        """See :meth:`bootvol.interfaces.IIdentifiedBackend.expect`.

        Each connection to the cluster checks the identity.
        """
        self._cluster.expect(identity)

    async def allocate(self, volume: str, size: int) -> None:
        """See :meth:`bootvol.interfaces.IBlockBackend.allocate`."""
        await self._retry(
            "Making", volume, lambda images, beat: images.allocate(volume, size, beat)
        )

    async def clone(self, source: str, target: str, size: int, held: int = 0) -> None:
        """See :meth:`bootvol.interfaces.ICloningBackend.clone`.

        If a clone's reads would go through too many images, the clone gets a full copy of the
        data. Then the call takes as long as a copy.
        """
        await self._run(
            "Cloning", source, lambda images, beat: images.clone(source, target, size, held, beat)
        )

    async def clone_image(self, location: str, volume: str, size: int) -> int | None:
        """See :meth:`bootvol.interfaces.IImageCloningBackend.clone_image`."""
        found = Location.parse(location)
        if found is None or found.pool not in self._options.image_pools:
            return None
        return await self._run(
            "Cloning an image to", volume, lambda images, _: images.clone_image(found, volume, size)
        )

    async def grow(self, volume: str, size: int) -> None:
        """See :meth:`bootvol.interfaces.IGrowingBackend.grow`."""
        await self._retry("Extending", volume, lambda images, _: grow(images, volume, size))

    async def room(self) -> Room | None:
        """See :meth:`bootvol.interfaces.IMeasuredBackend.room`."""
        found = await self._run("Measuring", "the pool", lambda images, _: images.pool.space())
        return None if found is None else Room(*found)

    async def stored_disks(self) -> Sequence[StoredDisk]:
        """See :meth:`bootvol.interfaces.IAdoptingBackend.stored_disks`."""
        return await self._run("Listing", "the images", adoption.stored_disks)

    async def stored_disk(self, place: str) -> StoredDisk | None:
        """See :meth:`bootvol.interfaces.IAdoptingBackend.stored_disk`."""
        return await self._run(
            "Finding", "an image", lambda images, _: adoption.stored_disk(images, place)
        )

    async def adopt(self, place: str, volume: str, unit: int) -> int:
        """See :meth:`bootvol.interfaces.IAdoptingBackend.adopt`."""
        return await self._retry(
            "Taking over", volume, lambda images, _: adoption.adopt(images, place, volume, unit)
        )

    async def give_up(self, volume: str, place: str) -> None:
        """See :meth:`bootvol.interfaces.IAdoptingBackend.give_up`."""
        await self._retry(
            "Giving up", volume, lambda images, beat: adoption.give_up(images, volume, place, beat)
        )

    async def stored_snapshots(self) -> Sequence[StoredDisk]:
        """See :meth:`bootvol.interfaces.ISnapshotAdoptingBackend.stored_snapshots`."""
        return await self._run("Listing", "the snapshots", adoption.stored_snapshots)

    async def adopt_snapshot(self, volume: str, place: str, snapshot: str, unit: int) -> int | None:
        """See :meth:`bootvol.interfaces.ISnapshotAdoptingBackend.adopt_snapshot`."""
        return await self._retry(
            "Taking over a snapshot of",
            volume,
            lambda images, beat: adoption.adopt_snapshot(
                images, volume, place, snapshot, unit, beat
            ),
        )

    async def delete(self, volume: str) -> None:
        """See :meth:`bootvol.interfaces.IBlockBackend.delete`; leave foreign images alone."""
        await self._retry("Deleting", volume, lambda images, beat: images.delete(volume, beat))
        if self._reactor.seconds() >= self._next_sweep:
            self._next_sweep = self._reactor.seconds() + _SWEEP
            self._sweeping = Shared(Deferred.fromCoroutine(self._sweep()))

    async def open_writer(self, volume: str) -> IVolumeWriter:
        """See :meth:`bootvol.interfaces.IBlockBackend.open_writer`."""
        return await self._open(volume, Images.open_writer)

    async def open_reader(self, volume: str) -> IVolumeReader:
        """See :meth:`bootvol.interfaces.IBlockBackend.open_reader`."""
        return await self._open(volume, Images.open_reader)

    async def check_unused(self, volume: str) -> None:
        """See :meth:`bootvol.interfaces.IGuardedBackend.check_unused`; check the image's watchers.

        Another daemon has an image open while it clones the image.  A cluster counts a killed
        daemon or guest as alive for 30 seconds.  So the call waits for the other client to end.
        """
        await self._retry("Finding", volume, lambda images, _: images.check_unused(volume))

    async def connection(self, volume: str) -> ConnectionInfo:
        """See :meth:`bootvol.interfaces.IBlockBackend.connection`."""
        await self._run("Finding", volume, lambda images, _: images.check(volume))
        return ConnectionInfo("rbd", self._options.address(volume))

    async def route(self, volume: str) -> RbdRoute:
        """See :meth:`bootvol.interfaces.IRoutingBackend.route`."""

        def asked(images: Images) -> RbdRoute:
            images.check(volume)
            return route(images.pool, self._options, volume)

        return await self._run("Finding", volume, lambda images, _: asked(images))

    async def close(self) -> None:
        """See :meth:`bootvol.interfaces.IClosable.close`."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            await self._sweeping.wait()
        await self._cluster.close()

    async def _open(self, volume: str, call: Callable[[Images, str], Image]) -> OpenImage:
        def opened(images: Images) -> tuple[Pool, Image, int]:
            image = call(images, volume)
            return images.pool, image, image.size()

        found = await self._run(
            "Opening", volume, lambda images, _: opened(images), lambda found: found[1].close()
        )
        return OpenImage(self._cluster, *found, self._called(volume))

    async def _sweep(self) -> None:
        """Remove remains of deleted images, when no client that died before now counts as alive.

        What a dead client had open cannot be removed earlier, neither by a sweep nor together
        with the last clone.
        """
        try:
            await sleep(self._reactor, self._options.patience)
            await self._run("Tidying up", "what was deleted", lambda images, _: images.sweep())
        except CancelledError:
            return
        except BackendFailed:
            self._log.failure("backend {name} is not tidied up", name=self.name)

    async def _retry(
        self, doing: str, volume: str, call: Callable[[Images, Callable[..., int]], T]
    ) -> T:
        """Run a call that no other client may disturb; retry while a client has the image open.

        :raises VolumeInUse: if the image is still open after the last attempt.
        """
        left = self._options.patience
        while True:
            left -= 1
            try:
                return await self._run(doing, volume, call)
            except InUse as error:
                if not left:
                    await self._tell_users(volume)
                    raise VolumeInUse(str(error)) from error
                await sleep(self._reactor, _PAUSE)

    async def _tell_users(self, volume: str) -> None:
        """Log the addresses of the clients that have a volume's image open."""
        with suppress(BackendFailed):
            found = await self._run(
                "Finding", volume, lambda images, _: (images.watchers(volume), images.pool.address)
            )
            self._log.warn(
                "{volume} is in use by the clients {clients} of the cluster; this daemon is {own}",
                volume=self._called(volume),
                clients=found[0],
                own=found[1],
            )

    async def _run(
        self,
        doing: str,
        volume: str,
        call: Callable[[Images, Callable[..., int]], T],
        undo: Callable[[T], object] = lambda _: None,
    ) -> T:
        return await self._cluster.run(
            f"{doing} {self._called(volume)} failed",
            lambda pool, beat: call(Images(pool, self.name), beat),
            undo,
        )

    def _called(self, volume: str) -> str:
        return f"{volume} on backend {self.name}"
