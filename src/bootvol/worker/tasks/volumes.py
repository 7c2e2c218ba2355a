"""Tasks that make volumes, and remove them."""

from __future__ import annotations

from sqlalchemy import Connection as Db
from twisted.internet.interfaces import IReactorTime

from bootvol.errors import ErrorReport, HypervisorFailed, ImportFailed
from bootvol.interfaces import IGrowingBackend, IHypervisor, IResizingHypervisor
from bootvol.lifecycle import Event, Kind, Status
from bootvol.model import GIB, Disk, Import, Phase, Server, Volume
from bootvol.store import attachments as attachment_rows
from bootvol.store import holds, import_queue, states
from bootvol.store import imports as import_rows
from bootvol.store import servers as server_rows
from bootvol.store import volumes as volume_rows
from bootvol.worker.claims import Claim
from bootvol.worker.image_cache import ImageCache
from bootvol.worker.importer import Importer
from bootvol.worker.tasks.storage import Making, OnBackendTask, Removing, Storage


class MakeBlank(Making):
    """Makes a volume of zeros."""

    kind = Kind.VOLUME

    def mark(self) -> None:
        """See :meth:`Task.mark`: backends do not report the progress of zeroing."""

    async def work(self, claim: Claim) -> Event:
        """Allocate the volume, and zero its old blocks."""
        await self.storage.with_room(
            self._backend, lambda: self.backend_plugin.allocate(self._name, self._size)
        )
        if not self.backend_plugin.capabilities.reads_zero_when_new:
            writer = await self.backend_plugin.open_writer(self._name)
            try:
                await writer.zero(0, self._size)
                await writer.flush()
            finally:
                await writer.close()
        return Event.COMPLETE


class MakeFromImage(Making):
    """Makes a bootable volume: an import."""

    kind = Kind.VOLUME

    def __init__(
        self,
        volume: Volume,
        source: str,
        storage: Storage,
        importer: Importer,
        image_cache: ImageCache,
        clock: IReactorTime,
    ) -> None:
        super().__init__(volume, storage, clock)
        self._importer = importer
        self._image_cache = image_cache
        self._clock = clock
        self._volume = volume
        self._source = source
        self._failed_for_all = False

    @property
    def source(self) -> str | None:
        """The image's source."""
        return self._source

    def done(self) -> int:
        """See :meth:`Task.done`."""
        return self._progress.bytes_done

    async def work(self, claim: Claim) -> Event:
        """Copy the image."""
        task = await claim.in_transaction(_begin, self.id)
        self._progress.inherited = task.durable_name
        try:
            await self._importer.run(self._volume, task, self._progress, claim)
        except ImportFailed as error:
            self._failed_for_all = error.of_image
            raise
        return Event.COMPLETE

    def settle(self, db: Db, event: Event, error: ErrorReport | None) -> None:
        """See :meth:`Task.settle`."""
        # If each waiting import had to find out by itself, a bad image would be downloaded many
        # times.
        waiting = import_queue.followers(db, self.id) if self._failed_for_all else ()
        super().settle(db, event, error)
        for number in waiting:
            states.apply_event(db, Kind.VOLUME, number, Event.FAIL, error, cause=self.id)
            import_rows.record(db, number, phase=Phase.FAILED)

    async def remove(self) -> None:
        """Give all space back, and give up the cached image that was begun from the volume."""
        await super().remove()
        # Last, since the database may lie on the same disk, which is full.
        await self._image_cache.let_go(self.id)

    def stop(self) -> None:
        """See :meth:`Task.stop`."""
        self._progress.stopping = True

    def columns(self) -> dict[str, object]:
        """See :meth:`Task.columns`."""
        return self._progress.columns(self._clock.seconds())

    def record(self, db: Db, columns: dict[str, object]) -> None:
        """See :meth:`Task.record`."""
        import_rows.record(db, self.id, **columns)

    def ending(self, *, failed: bool) -> None:
        """See :meth:`Task.ending`."""
        self._progress.phase = Phase.FAILED if failed else Phase.DONE

    async def after(self) -> None:
        """Remove cached images of no further use."""
        await self._image_cache.tidy(self._backend)


def _begin(db: Db, volume_id: int) -> Import:
    """Note that an import begins; return its current row."""
    states.apply_event(db, Kind.VOLUME, volume_id, Event.DOWNLOAD)
    return import_rows.begin(db, volume_id)


class ExtendVolume(OnBackendTask):
    """Makes a volume larger, and tells the server that runs with the volume.

    :param hypervisor: None if other systems run the servers.
    """

    kind = Kind.VOLUME
    statuses = frozenset({Status.EXTENDING})

    def __init__(self, volume: Volume, storage: Storage, hypervisor: IHypervisor | None) -> None:
        super().__init__(volume, storage)
        self._volume = volume
        self._hypervisor = hypervisor
        self._target = volume.target_gib or volume.size_gib
        self._grown = False

    async def work(self, claim: Claim) -> Event:
        """Make the volume larger on its backend."""
        plugged = await claim.in_transaction(_plugged, self.id)
        growing = IGrowingBackend(self.backend_plugin)
        growth = self.storage.with_room(
            self._backend, lambda: growing.grow(self._name, self._target * GIB)
        )
        # Other volumes need the place among those who talk to servers.
        await (growth if plugged is None else self.lane_place.rest(growth))
        self._grown = True
        if plugged is not None:
            await self._tell(*plugged)
        return Event.EXTENDED

    async def _tell(self, server: Server, device: str) -> None:
        """Let a server know the new size, if the server runs.

        :raises HypervisorFailed: if the guest sees the former size until its next start.
        """
        if self._hypervisor is None or server.name not in await self._hypervisor.running():
            return
        disk = Disk(device, await self.storage.connection(self._volume))
        try:
            await IResizingHypervisor(self._hypervisor).resize(
                server.name, disk, self._target * GIB
            )
        except HypervisorFailed as error:
            raise HypervisorFailed(
                f"The volume is larger, but the server sees the former size until its next start."
                f" {error.message}"
            ) from error

    async def undo(self) -> Event:
        """Return the event for a volume of its former size, unless its data is missing."""
        return Event.EXTENDED if self._grown else await self.spared(Event.EXTENDED)

    def settle(self, db: Db, event: Event, error: ErrorReport | None) -> None:
        """See :meth:`Task.settle`; the size changes now."""
        # While a server has the volume, nothing else decides about the volume's status.
        if attachment_rows.find(db, self.id) is not None:
            event = Event.ATTACHED
        elif event is Event.EXTENDED or holds.exist(db, self.id):
            event = holds.after_growth(db, self.id)
        super().settle(db, event, error)
        grown = {"size_gib": self._target} if error is None or self._grown else {}
        volume_rows.change(db, self.id, {"target_gib": None, **grown})

    async def lost(self) -> None:
        """See :meth:`Task.lost`: the volume stays."""


def _plugged(db: Db, volume_id: int) -> tuple[Server, str] | None:
    """Return the server of bootvol's with a volume, and the device there; None without such."""
    server, attachment = server_rows.having(db, volume_id), attachment_rows.find(db, volume_id)
    return None if server is None or attachment is None else (server, attachment.disk)


class RemoveVolume(Removing):
    """Removes a volume."""

    kind = Kind.VOLUME

    def __init__(self, volume: Volume, storage: Storage, image_cache: ImageCache) -> None:
        super().__init__(volume, storage)
        self._image_cache = image_cache
        self._bootable = volume.image_id is not None

    async def remove(self) -> None:
        """Give all space back, and give up the cached image that was begun from the volume."""
        await self._image_cache.let_go(self.id)
        await super().remove()

    async def after(self) -> None:
        """Remove the cached image that only this volume's import could have wanted."""
        if self._bootable:
            await self._image_cache.tidy(self._backend)
