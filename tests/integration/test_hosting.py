"""Attachments and servers when things go wrong: no volume in use counts as free."""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from sqlalchemy import Connection as Db
from sqlalchemy import make_url, update
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from zope.interface import implementer

from bootvol import questions, tables
from bootvol.backends import Backends
from bootvol.clocks import sleep
from bootvol.errors import (
    AttachmentNotFound,
    BadMapping,
    ExportFailed,
    HypervisorFailed,
    HypervisorSilent,
    InvalidRequest,
    NotForGuests,
    QuotaExceeded,
    ServerBusy,
    ServerNotFound,
    VolumeBusy,
    VolumeElsewhere,
)
from bootvol.exports.exports import Exports
from bootvol.interfaces import IPoweringHypervisor
from bootvol.jail import Jail
from bootvol.lifecycle import Event, Kind, Status
from bootvol.model import (
    GIB,
    Caller,
    ConnectionInfo,
    Disk,
    Flavor,
    Machine,
    NewDisk,
    NewServer,
    NewVolume,
    Server,
    Volume,
)
from bootvol.service.attachments import Attachments
from bootvol.service.quotas import Quota, Quotas
from bootvol.service.servers import Servers
from bootvol.service.sizes import Sizes
from bootvol.service.volume_types import VolumeTypes
from bootvol.service.volumes import Volumes
from bootvol.store import attachments as attachment_rows
from bootvol.store import daemons, schema, states
from bootvol.store import servers as server_rows
from bootvol.store.database import Database
from bootvol.testing.machines import READY, MemoryHypervisor, MemoryServer
from bootvol.threads import Shared, Threads
from bootvol.worker.export_recovery import ExportRecovery
from bootvol.worker.tasks.attachments import Attach, Detach, VolumeAccess
from bootvol.worker.tasks.servers import BuildServer, EndServer, PowerServer
from bootvol.worker.tasks.snapshots import RemoveSnapshot
from bootvol.worker.tasks.storage import Storage
from bootvol.worker.tasks.volumes import ExtendVolume, MakeBlank, RemoveVolume
from bootvol.worker.worker import Concurrency, Worker
from bootvol_plugins.file import FileBackend
from tests.disks import disk
from tests.unit.test_worker import NoImageCache, factories
from tests.waiting import until

loop: Any = reactor
ANN = Caller("ann", "t")


class BreakingExports(Exports):
    """Exports that may fail to close.

    :ivar fails: True if closing fails.
    :ivar elsewhere: a new address of all exports, if not None.
    """

    fails = False
    elsewhere: ConnectionInfo | None = None

    async def open(self, name: str, source: ConnectionInfo) -> ConnectionInfo:
        """See bootvol.exports.exports.Exports."""
        return self.elsewhere or await super().open(name, source)

    async def close(self, name: str) -> None:
        """See bootvol.exports.exports.Exports."""
        if self.fails:
            raise ExportFailed
        await super().close(name)


class World:
    """The parts of a daemon without the API, for tests of attachments and servers.

    The database (SQLite), the exports (real qemu-nbd processes) and the backend ``b`` (files) are
    real.  The hypervisor keeps its servers in memory.  No images exist, so all volumes are blank.

    A test asks the services for work (:meth:`volume`, :meth:`boot`, ``attachments.create``), waits
    for the result (:meth:`until`, :meth:`server`, :meth:`gone`), and looks at ``hypervisor``,
    ``exports`` or ``database``.  To make a part fail, a test replaces that part, and calls
    :meth:`restart`.

    :ivar worker: does the work.  The same daemon, named ``d``, comes back after :meth:`restart`.
    :ivar volumes: the service that creates, shows and deletes volumes.  ``attachments``,
        ``servers`` and ``quotas`` are the services of these names.
    :ivar clock: the time that the service of servers sees.  The worker uses the real time.
    """

    def __init__(self, folder: Path) -> None:
        self.database = Database(make_url(f"sqlite:///{folder / 'x.db'}"), loop)
        self.database.upgrade()
        self.database.start()
        self.hypervisor: Any = MemoryHypervisor("h", loop)
        self.clock = Clock()
        self.threads = Threads(loop, "test", 4)
        self.threads.start()
        # Paths of sockets must be short.
        self.short = tempfile.TemporaryDirectory()
        options = tables.ExportsTable(by="unix", directory=Path(self.short.name))
        self.exports: Any = BreakingExports(options, self.threads, loop, Jail())
        self.volumes_in = folder / "volumes"
        self.volumes_in.mkdir()
        self.backend = FileBackend("b", self.volumes_in, self.threads)
        self.restart()

    async def stop(self) -> None:
        """Stop everything, including processes that outlive the daemon."""
        await self.worker.stopService()
        for name in await self.exports.names():
            await self.exports.close(name)
        self.database.stop()
        self.threads.stop()
        self.short.cleanup()

    def restart(self) -> None:
        """Start a new worker, as after a killed daemon."""
        no: Any = None
        image_cache: Any = NoImageCache()
        backends = Backends([self.backend], loop)
        self.quotas = Quotas(self.database, Quota(-1, -1, -1, -1))
        database, hypervisor = self.database, self.hypervisor
        storage = Storage(backends, database, image_cache, "d")
        access = VolumeAccess(database, backends, self.exports)
        tasks = factories(
            make_blank=lambda volume: MakeBlank(volume, storage, loop),
            extend_volume=lambda volume: ExtendVolume(volume, storage, hypervisor),
            remove_volume=lambda volume: RemoveVolume(volume, storage, image_cache),
            remove_snapshot=lambda snapshot: RemoveSnapshot(snapshot, storage),
            attach=lambda volume: Attach(volume, access, hypervisor, "d"),
            detach=lambda volume: Detach(volume, access, hypervisor, "d"),
            build_server=lambda server: BuildServer(
                server, access, hypervisor, database, "nova", "d"
            ),
            power_server=lambda server: PowerServer(server, access, hypervisor, database, "nova"),
            end_server=lambda server: EndServer(server, access, hypervisor, database, "nova"),
        )
        self.worker = Worker(
            Concurrency(1),
            tasks,
            "d",
            database,
            backends,
            image_cache,
            ExportRecovery("d", database, backends, self.exports, loop),
            [],
            loop,
            serves=hypervisor is not None,
        )
        now = lambda: datetime.now(UTC)  # noqa: E731 - what the daemon passes
        types = VolumeTypes(self.database, backends)
        self.volumes = Volumes(
            self.database, no, backends, self.quotas, types, "d", "nova", self.worker, now
        )
        self.sizes = Sizes(self.database, backends, self.quotas, hypervisor, self.worker)
        hosts = self.hypervisor is not None
        self.attachments = Attachments(self.database, hosts, self.worker)
        self.servers = Servers(
            self.database,
            self.volumes,
            "d",
            self.hypervisor,
            [Flavor("1", "tiny", 64, 1)],
            self.quotas,
            self.worker,
            self.clock,
            9,
            now,
        )
        self.worker.startService()

    async def volume(self) -> int:
        """Make a volume."""
        made = await self.volumes.create(ANN, NewVolume(1))
        await self.until(made.id, Status.AVAILABLE)
        return made.id

    async def until(self, number: int, wanted: Status) -> Volume:
        """Wait until a volume has a status."""
        return await until(
            lambda: self.volumes.get(ANN, number), lambda found: found.status is wanted
        )

    async def boot(self, *volumes: int, **more: Any) -> Server:
        """Request a server."""
        disks = [NewDisk(f"vd{'abc'[n]}", number, **more) for n, number in enumerate(volumes)]
        return await self.servers.create(ANN, NewServer("x", "1", tuple(disks)))

    async def server(self, number: int, wanted: Status) -> Server:
        """Wait until a server has a status."""
        server, _ = await until(
            lambda: self.servers.get(ANN, str(number)), lambda found: found[0].status is wanted
        )
        return server

    async def gone(self, number: int) -> None:
        """Wait until a server does not exist."""
        await until(
            lambda: self.servers.listed(ANN),
            lambda found: number not in {each.id for each, _ in found},
        )

    async def started(self) -> tuple[Server, int]:
        """Return a running server, and its root volume."""
        volume = await self.volume()
        made = await self.boot(volume)
        return await self.server(made.id, Status.AVAILABLE), volume


@pytest_twisted.async_yield_fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """The running services."""
    world = World(tmp_path)
    yield world
    await world.stop()


@ensureDeferred
async def test_nobody_guesses_the_name_of_a_socket(world: World) -> None:
    """The sockets of servers and exports have random names, which the API does not show.

    Break: `src/bootvol/service/servers.py`: `name=f"server-{uuid4()}"` -> `name="server-1"`.
    Break: `src/bootvol/service/volumes.py`: `name=f"volume-{uuid4()}"` -> `name="volume-1"`.
    """
    server, number = await world.started()
    volume = await world.volumes.get(ANN, number)
    for kind, each in (("server", server), ("volume", volume)):
        random = each.name.removeprefix(f"{kind}-")
        assert UUID(random).version == 4
        assert each.uuid not in (None, random)


@ensureDeferred
async def test_a_disk_comes_and_goes(world: World) -> None:
    server, _ = await world.started()
    volume = await world.volume()
    made = await world.attachments.create(ANN, str(server.id), volume, None)
    assert made.device == "/dev/vdb"
    found = await world.until(volume, Status.IN_USE)
    disks = world.hypervisor.servers[server.name].disks
    assert disks.keys() == {"vda", "vdb"}
    # A hypervisor gets the same answer as the server.
    admin = Caller("root", "t", frozenset({"admin"}))
    assert await world.volumes.connection(admin, volume) == disks["vdb"]
    await world.attachments.delete(ANN, server.uuid, volume)
    await world.until(volume, Status.AVAILABLE)
    assert disks.keys() == {"vda"}
    assert found.name not in await world.exports.names()
    assert (await world.volumes.connection(admin, volume)).kind == "file"


class Forgetful(MemoryHypervisor):
    """A hypervisor whose guests see no new sizes."""

    async def resize(self, server: str, disk: Disk, size: int) -> None:
        """See bootvol.interfaces.IResizingHypervisor."""
        raise HypervisorFailed("QEMU does not answer.")


class Silent(MemoryHypervisor):
    """A hypervisor that does not answer about new sizes.

    :ivar asked: True once the daemon has asked.
    """

    asked = False

    async def resize(self, server: str, disk: Disk, size: int) -> None:
        """See bootvol.interfaces.IResizingHypervisor."""
        self.asked = True
        await Deferred()


@ensureDeferred
async def test_a_disk_becomes_larger_while_its_server_runs(world: World) -> None:
    """Break: `src/bootvol/worker/tasks/volumes.py`: `if error is None or self._grown` -> `if error
    is None`
    """
    server, served = await world.started()
    with pytest.raises(InvalidRequest, match="by NBD"):
        await world.sizes.extend(ANN, served, 2, in_use=True)
    exports = world.exports
    await world.worker.stopService()
    world.exports = None
    world.restart()
    try:
        server, volume = await world.started()
        with pytest.raises(VolumeBusy):
            await world.sizes.extend(ANN, volume, 2)
        await world.sizes.extend(ANN, volume, 2, in_use=True)
        await world.until(volume, Status.EXTENDING)
        # A server waits with its end for the growth of its disks.
        await world.servers.delete(ANN, str(server.id))
        with pytest.raises(VolumeBusy):
            await world.sizes.extend(ANN, volume, 3, in_use=True)
        await world.gone(server.id)
        found = await world.until(volume, Status.AVAILABLE)
        assert found.size_gib == 2
        # The volume has its new size, though the guest does not know.
        made = await world.boot(volume)
        server = await world.server(made.id, Status.AVAILABLE)
        await world.worker.stopService()
        world.hypervisor = Forgetful("h", loop, world.hypervisor.servers)
        world.restart()
        await world.sizes.extend(ANN, volume, 3, in_use=True)
        error = await until(lambda: world.volumes.error(ANN, volume), bool)
        assert error is not None
        assert "sees the former size until its next start. QEMU" in error.message
        found = await world.until(volume, Status.IN_USE)
        assert (found.size_gib, found.target_gib) == (3, None)
        # The next daemon tells the guest what the last one could not tell any more.
        await world.worker.stopService()
        world.hypervisor = Silent("h", loop, world.hypervisor.servers)
        world.restart()
        await world.sizes.extend(ANN, volume, 4, in_use=True)
        await until(lambda: world.hypervisor.asked)
        await world.worker.stopService()
        world.hypervisor = MemoryHypervisor("h", loop, world.hypervisor.servers)
        world.restart()
        found = await world.until(volume, Status.IN_USE)
        assert found.size_gib == 4
        assert world.hypervisor.servers[server.name].sizes == {"vda": 4 * GIB}
    finally:
        world.exports = exports


@ensureDeferred
async def test_a_disk_that_a_server_keeps_open_is_not_free(tmp_path: Path) -> None:
    """A guest in control of QEMU says that the disk is gone, and keeps the descriptor.

    Break: `src/bootvol/worker/tasks/attachments.py`: `await
    self.lane_place.rest(self.access.check_let_go(self.volume))` -> `pass`
    Break: `src/bootvol/devices.py`: `if error.errno == errno.EAGAIN:` -> `if False:`.
    """
    with disk(tmp_path / "disk", 4 * 1024**3, "ext4") as mounted:
        world = World(mounted.folder)
        exports = world.exports
        try:
            await world.worker.stopService()
            world.exports = None
            world.restart()
            server, _ = await world.started()
            volume = await world.volume()
            await world.attachments.create(ANN, str(server.id), volume, None)
            found = await world.until(volume, Status.IN_USE)
            with (world.volumes_in / f"{found.name}.raw").open("r+b"):
                await world.attachments.delete(ANN, server.uuid, volume)
                error = await until(lambda: world.volumes.error(ANN, volume), bool)
                assert error is not None
                assert error.code == "volume-in-use"
                await world.until(volume, Status.IN_USE)
            await world.attachments.delete(ANN, server.uuid, volume)
            await world.until(volume, Status.AVAILABLE)
            # What is gone is free.
            await world.attachments.create(ANN, str(server.id), volume, None)
            await world.until(volume, Status.IN_USE)
            (world.volumes_in / f"{found.name}.raw").unlink()
            await world.attachments.delete(ANN, server.uuid, volume)
            await world.until(volume, Status.AVAILABLE)
        finally:
            world.exports = exports
            await world.stop()


@ensureDeferred
async def test_work_of_a_daemon_that_does_not_run_says_so(world: World) -> None:
    server, _ = await world.started()
    volume = await world.volume()
    await world.attachments.create(ANN, str(server.id), volume, None)
    await world.until(volume, Status.IN_USE)

    def belongs(db: Db, daemon: str) -> None:
        for table in schema.servers, schema.attachments:
            db.execute(update(table).values(daemon=daemon))

    await world.database.write(belongs, "other")
    await world.database.write(daemons.announce, "other", "attic")
    await world.attachments.delete(ANN, str(server.id), volume)
    await world.servers.delete(ANN, str(server.id))
    waiting, _ = await world.servers.get(ANN, str(server.id))
    assert waiting.error is None
    assert await world.volumes.error(ANN, volume) is None
    ended = update(schema.daemons).values(lease_until=-1.0)
    await world.database.write(lambda db: db.execute(ended))
    waiting, _ = await world.servers.get(ANN, str(server.id))
    ((listed, _),) = await world.servers.listed(ANN)
    for reason in waiting.error, listed.error, await world.volumes.error(ANN, volume):
        assert reason is not None
        assert reason.code == "daemon-away"
        assert "host attic" in reason.message
    await world.database.write(belongs, "d")
    world.worker.wake()
    await world.gone(server.id)
    await world.until(volume, Status.AVAILABLE)


@ensureDeferred
async def test_what_the_guest_does_not_let_go_of_stays_in_use(world: World) -> None:
    server, _ = await world.started()
    volume = await world.volume()
    await world.attachments.create(ANN, str(server.id), volume, None)
    await world.until(volume, Status.IN_USE)
    running = world.hypervisor.servers[server.name]
    running.lets_go = False
    await world.attachments.delete(ANN, str(server.id), volume)
    await world.until(volume, Status.DETACHING)
    kept = await world.until(volume, Status.IN_USE)
    assert kept.error is not None
    assert kept.error.code == "hypervisor-failed"
    assert kept.attachments
    with pytest.raises(VolumeBusy):
        await world.volumes.delete(ANN, volume)
    running.lets_go = True
    await world.attachments.delete(ANN, str(server.id), volume)
    free = await world.until(volume, Status.AVAILABLE)
    assert free.error is None


@ensureDeferred
async def test_what_cannot_be_cut_off_stays_in_use(world: World) -> None:
    server, _ = await world.started()
    volume = await world.volume()
    await world.attachments.create(ANN, str(server.id), volume, None)
    await world.until(volume, Status.IN_USE)
    world.exports.fails = True
    await world.attachments.delete(ANN, str(server.id), volume)
    await world.until(volume, Status.DETACHING)
    kept = await world.until(volume, Status.IN_USE)
    assert kept.error is not None
    assert kept.error.code == "export-failed"
    world.exports.fails = False


@ensureDeferred
async def test_what_is_half_attached_stays_in_use(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log has one line: a guest that has broken out may cause many such failures."""
    server, _ = await world.started()
    volume = await world.volume()

    async def refuse(*_: object) -> None:
        raise HypervisorFailed("no")

    monkeypatch.setattr(world.hypervisor, "attach", refuse)
    world.exports.fails = True
    with capturedLogs() as logged:
        await world.attachments.create(ANN, str(server.id), volume, None)
        kept = await world.until(volume, Status.IN_USE)
    assert kept.error is not None
    assert any("is half attached: " in formatEvent(each) for each in logged)
    assert not any("log_failure" in each for each in logged)
    world.exports.fails = False


@pytest.mark.parametrize("hosts", [True, False])
@ensureDeferred
async def test_what_is_exported_stays_in_use_without_exports(world: World, hosts: bool) -> None:
    if hosts:
        server = str((await world.started())[0].id)
    else:
        await world.worker.stopService()
        world.hypervisor, server = None, "1001"
        world.restart()
    volume = await world.volume()
    await world.attachments.create(ANN, server, volume, None)
    name = (await world.until(volume, Status.IN_USE)).name
    await world.worker.stopService()
    exports, world.exports = world.exports, None
    world.restart()
    await world.attachments.delete(ANN, server, volume)
    await world.until(volume, Status.DETACHING)
    kept = await world.until(volume, Status.IN_USE)
    assert kept.error is not None
    assert "still exported" in kept.error.message
    await world.worker.stopService()
    world.exports = exports
    world.restart()
    # Other work begins only when all exports are served again.
    await world.volume()
    assert name in await exports.names()
    await world.attachments.delete(ANN, server, volume)
    await world.until(volume, Status.AVAILABLE)
    assert name not in await exports.names()


@ensureDeferred
async def test_a_server_that_is_turned_off_gets_a_disk_when_it_is_turned_on(world: World) -> None:
    server, _ = await world.started()
    number, volume = str(server.id), await world.volume()
    await world.servers.power(ANN, number, Event.STOP)
    await world.server(server.id, Status.AVAILABLE)
    await world.attachments.create(ANN, number, volume, None)
    found = await world.until(volume, Status.IN_USE)
    assert found.error is None
    with pytest.raises(VolumeBusy):
        await world.volumes.delete(ANN, volume)
    await world.servers.power(ANN, number, Event.START)
    await world.server(server.id, Status.AVAILABLE)
    assert world.hypervisor.servers[server.name].disks.keys() == {"vda", "vdb"}
    # Detached from a stopped server, the disk is free at once.
    await world.servers.power(ANN, number, Event.STOP)
    await world.server(server.id, Status.AVAILABLE)
    await world.attachments.delete(ANN, number, volume)
    await world.until(volume, Status.AVAILABLE)
    await world.servers.power(ANN, number, Event.START)
    await world.server(server.id, Status.AVAILABLE)
    assert world.hypervisor.servers[server.name].disks.keys() == {"vda"}


@ensureDeferred
async def test_what_cannot_be_attached_is_free_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, _ = await world.started()
    volume = await world.volume()

    async def refuse(_server: str, _disk: Disk) -> None:
        raise HypervisorFailed("no")

    monkeypatch.setattr(world.hypervisor, "attach", refuse)
    await world.attachments.create(ANN, str(server.id), volume, None)
    found = await until(
        lambda: world.volumes.get(ANN, volume), lambda found: found.error is not None
    )
    assert found.status is Status.AVAILABLE
    assert found.error is not None
    assert found.error.code == "hypervisor-failed"
    assert found.name not in await world.exports.names()
    with pytest.raises(AttachmentNotFound):
        await world.attachments.get(ANN, str(server.id), volume)
    # The error stays until the next event.
    await world.volumes.delete(ANN, volume)


@ensureDeferred
async def test_a_server_that_does_not_start_frees_its_volumes(world: World) -> None:
    _, taken = await world.started()
    spare = await world.volume()
    # As if another program had the disk open, unknown to bootvol.
    other = await world.volumes.get(ANN, spare)
    file = world.volumes_in / f"{other.name}.raw"
    with file.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        await _does_not_start(world, spare)
    assert (await world.volumes.get(ANN, taken)).status is Status.IN_USE


async def _does_not_start(world: World, spare: int) -> None:
    made = await world.boot(spare)
    failed = await world.server(made.id, Status.ERROR)
    assert failed.error is not None
    assert failed.error.code == "export-failed"
    free = await world.until(spare, Status.AVAILABLE)
    assert free.attachments == ()
    assert free.name not in await world.exports.names()
    await world.servers.delete(ANN, str(made.id))
    await world.gone(made.id)


@ensureDeferred
async def test_a_server_that_may_still_run_keeps_its_volumes(world: World) -> None:
    volume = await world.volume()

    class Stuck(MemoryHypervisor):
        works = False

        async def start(self, server: str, machine: Any) -> None:
            await super().start(server, machine)
            if not self.works:
                raise HypervisorFailed

        async def stop(self, server: str) -> None:
            if not self.works:
                raise HypervisorFailed
            await super().stop(server)

    await world.worker.stopService()
    stuck = world.hypervisor = Stuck("h", loop)
    world.restart()
    made = await world.boot(volume)
    await world.server(made.id, Status.ERROR)
    assert (await world.until(volume, Status.IN_USE)).attachments
    await world.servers.delete(ANN, str(made.id))
    await sleep(loop, 0.1)
    await world.server(made.id, Status.ERROR)
    assert (await world.until(volume, Status.IN_USE)).attachments
    stuck.works = True
    await world.servers.delete(ANN, str(made.id))
    await world.gone(made.id)
    await world.until(volume, Status.AVAILABLE)


@ensureDeferred
async def test_all_of_a_server_or_nothing(world: World) -> None:
    free, (_, taken) = await world.volume(), await world.started()
    for volumes in ((free, taken), (free, 999), (taken,)):
        with pytest.raises(BadMapping, match=f"failed to get volume {volumes[-1]}"):
            await world.boot(*volumes)
    with pytest.raises(BadMapping, match="failed to get snapshot 5"):
        await world.servers.create(ANN, NewServer("x", "1", (NewDisk("vda", snapshot_id=5),)))
    with pytest.raises(BadMapping, match="No boot volume"):
        await world.servers.create(ANN, NewServer("x", "1", (NewDisk("vdb", free),)))
    assert len(await world.servers.listed(ANN)) == 1
    assert (await world.volumes.get(ANN, free)).status is Status.AVAILABLE


@ensureDeferred
async def test_terminating_ends_what_is_under_way(world: World) -> None:
    server, volume = await world.started()
    other = await world.volume()
    await world.attachments.create(ANN, str(server.id), other, None)
    await world.servers.delete(ANN, str(server.id))
    await world.gone(server.id)
    for number in volume, other:
        await world.until(number, Status.AVAILABLE)
    assert not world.hypervisor.servers
    assert not await world.exports.names()


@ensureDeferred
async def test_what_is_to_go_with_its_server_goes(world: World) -> None:
    volume = await world.volume()
    made = await world.boot(volume, delete_on_termination=True)
    await world.server(made.id, Status.AVAILABLE)
    await world.servers.delete(ANN, str(made.id))
    await world.gone(made.id)
    await until(lambda: world.volumes.listed(ANN), lambda found: not found)


@ensureDeferred
async def test_a_server_that_is_ended_takes_nothing_new(world: World) -> None:
    server, _ = await world.started()
    volume = await world.volume()
    await world.worker.stopService()
    await world.servers.delete(ANN, str(server.id))
    with pytest.raises(ServerBusy):
        await world.attachments.create(ANN, str(server.id), volume, None)
    with pytest.raises(ServerBusy):
        await world.servers.delete(ANN, str(server.id))
    with pytest.raises(ServerNotFound):
        await world.attachments.create(Caller("bob", "other"), str(server.id), volume, None)
    world.restart()
    await world.gone(server.id)


@ensureDeferred
async def test_a_restart_serves_what_is_attached_and_nothing_else(world: World) -> None:
    server, volume = await world.started()
    root = await world.volumes.get(ANN, volume)
    stray = await world.volumes.get(ANN, await world.volume())
    lies = await world.backend.connection(stray.name)
    await world.worker.stopService()
    await world.exports.open(stray.name, lies)
    await world.exports.close(root.name)
    # As if the configuration had named another address at that time.
    before = ConnectionInfo("nbd", "nbds://elsewhere/x")
    await world.database.write(attachment_rows.reached, volume, before)
    world.restart()
    await until(world.exports.names, lambda found: set(found) == {root.name})
    await world.volume()
    reached = await world.database.read(attachment_rows.reach, volume)
    assert reached is not None
    assert reached.address.startswith(f"nbd+unix:///{root.name}")
    assert server.name in world.hypervisor.servers


@ensureDeferred
async def test_what_was_not_ended_is_ended_after_a_restart(world: World) -> None:
    server, volume = await world.started()
    other = await world.volume()
    await world.attachments.create(ANN, str(server.id), other, None)
    await world.until(other, Status.IN_USE)
    await world.worker.stopService()
    await world.database.write(states.apply_event, Kind.VOLUME, other, Event.DETACH)
    world.restart()
    await world.until(other, Status.AVAILABLE)
    assert world.hypervisor.servers[server.name].disks.keys() == {"vda"}
    await world.until(volume, Status.IN_USE)


@ensureDeferred
async def test_a_console_has_as_many_lines_as_it_has(world: World) -> None:
    server, _ = await world.started()
    world.hypervisor.servers[server.name].console = b"one\ntwo\nthree\n"
    for length, expected in (1, "three\n"), (3, "one\ntwo\nthree\n"), (4, "one\ntwo\nthree\n"):
        assert await world.servers.console(ANN, server.uuid, length) == expected


class Deaf(MemoryHypervisor):
    """Accepts no disks, and does not say whether a disk is still in use.

    :ivar asked: True once a detach was requested.
    """

    asked = False

    async def attach(self, server: str, disk: Any) -> None:
        """See bootvol.interfaces.IHypervisor."""
        raise HypervisorFailed

    async def detach(self, server: str, device: str) -> None:
        """See bootvol.interfaces.IHypervisor."""
        self.asked = True
        await Deferred()


@ensureDeferred
async def test_a_daemon_that_ends_meanwhile_leaves_the_rest_to_the_next(world: World) -> None:
    server, _ = await world.started()
    volume = await world.volume()
    await world.worker.stopService()
    hearing = world.hypervisor
    deaf = world.hypervisor = Deaf("h", loop, hearing.servers)
    world.restart()
    await world.attachments.create(ANN, str(server.id), volume, None)
    await until(lambda: deaf.asked)
    await world.worker.stopService()
    assert (await world.volumes.get(ANN, volume)).status is Status.ATTACHING
    world.hypervisor = hearing
    world.restart()
    assert (await world.until(volume, Status.IN_USE)).error is None


@ensureDeferred
async def test_guests_that_let_go_of_nothing_hold_up_nobody_else(world: World) -> None:
    servers = [(await world.started())[0] for _ in range(4)]
    volumes = [await world.volume() for _ in servers]
    for server, volume in zip(servers, volumes, strict=True):
        await world.attachments.create(ANN, str(server.id), volume, None)
        await world.until(volume, Status.IN_USE)
    await world.worker.stopService()
    world.hypervisor = Deaf("h", loop, world.hypervisor.servers)
    world.restart()
    for server, volume in zip(servers, volumes, strict=True):
        await world.attachments.delete(ANN, str(server.id), volume)
    made = await world.volume()
    await world.volumes.delete(ANN, made)
    server = await world.boot(await world.volume())
    await world.server(server.id, Status.AVAILABLE)
    for volume in volumes:
        await world.until(volume, Status.DETACHING)


@ensureDeferred
async def test_a_server_that_did_not_end_lets_go_of_nothing_by_itself(world: World) -> None:
    server, _ = await world.started()
    volume = await world.volume()
    await world.attachments.create(ANN, str(server.id), volume, None)
    await world.until(volume, Status.IN_USE)
    await world.database.write(states.apply_event, Kind.SERVER, server.id, Event.FAIL)
    with pytest.raises(ServerBusy):
        await world.attachments.delete(ANN, str(server.id), volume)
    assert (await world.volumes.get(ANN, volume)).status is Status.IN_USE
    await world.servers.delete(ANN, str(server.id))
    await world.until(volume, Status.AVAILABLE)


class Slow(MemoryHypervisor):
    """Answers a question about running servers with delay.

    :ivar telling: fires to send the answer.
    """

    telling: Deferred[None] | None = None

    async def running(self) -> Any:
        """See bootvol.interfaces.IHypervisor."""
        found = await super().running()
        if self.telling is not None:
            await self.telling
        return found


@ensureDeferred
async def test_a_server_that_comes_up_is_not_shown_as_turned_off(world: World) -> None:
    await world.worker.stopService()
    slow = world.hypervisor = Slow("h", loop)
    world.restart()
    volume = await world.volume()
    await world.worker.stopService()
    server = await world.boot(volume)
    telling = slow.telling = Deferred()
    shown = Deferred.fromCoroutine(world.servers.get(ANN, str(server.id)))
    listed = Deferred.fromCoroutine(world.servers.listed(ANN))
    await sleep(loop, 0.05)
    slow.telling = None
    world.worker.startService()
    await world.server(server.id, Status.AVAILABLE)
    telling.callback(None)
    for found, runs in await shown, *(await listed):
        assert runs or found.status is Status.CREATING


@ensureDeferred
async def test_a_server_of_another_daemon_is_not_taken_for_turned_off(world: World) -> None:
    server, _ = await world.started()
    del world.hypervisor.servers[server.name]
    assert await world.servers.get(ANN, server.uuid) == (server, False)
    assert await world.servers.console(ANN, server.uuid, None) == ""
    await world.database.write(server_rows.assign, server.id, "other")
    assert [runs for _, runs in await world.servers.listed(ANN)] == [True]
    assert (await world.servers.get(ANN, server.uuid))[1]
    with pytest.raises(HypervisorFailed):
        await world.servers.console(ANN, server.uuid, None)


@ensureDeferred
async def test_what_a_restart_serves_elsewhere_is_found_there(world: World) -> None:
    _, volume = await world.started()
    await world.worker.stopService()
    # The machine was restarted, and its exports had been in memory.
    world.exports.elsewhere = ConnectionInfo("nbd", "nbds://host:1/x")
    world.restart()
    admin = Caller("root", "t", frozenset({"admin"}))
    await until(
        lambda: world.volumes.connection(admin, volume),
        lambda found: found == world.exports.elsewhere,
    )


@ensureDeferred
async def test_servers_have_a_quota(world: World) -> None:
    await world.quotas.set("t", {"instances": 1})
    server, _ = await world.started()
    volume = await world.volume()
    with pytest.raises(QuotaExceeded):
        await world.boot(volume)
    account = await world.quotas.account(ANN)
    assert (account.quota.instances, account.instances) == (1, 1)
    await world.servers.delete(ANN, str(server.id))
    await world.gone(server.id)
    await world.boot(volume)


class Hanging(MemoryHypervisor):
    """Answers no question until the test says so.

    :ivar asked: number of questions.
    :ivar answering: ends to send the answers.
    """

    asked = 0

    def __init__(self, servers: dict[str, Any]) -> None:
        super().__init__("h", loop, servers)
        self.answering: Shared[None] = Shared()

    async def running(self) -> Any:
        """See bootvol.interfaces.IHypervisor."""
        self.asked += 1
        await self.answering.wait()
        return await super().running()

    async def console(self, server: str, length: int) -> bytes:
        """See bootvol.interfaces.IHypervisor."""
        self.asked += 1
        await self.answering.wait()
        return await super().console(server, length)


@ensureDeferred
async def test_nobody_waits_for_ever_for_a_hypervisor(world: World) -> None:
    server, _ = await world.started()
    await world.worker.stopService()
    world.hypervisor = hanging = Hanging(world.hypervisor.servers)
    world.restart()

    def questions_of_callers() -> list[Any]:
        return [
            world.servers.listed(ANN),
            world.servers.get(ANN, server.uuid),
            world.servers.power(ANN, server.uuid, Event.STOP),
            world.servers.console(ANN, server.uuid, None),
        ]

    asked = [Deferred.fromCoroutine(each) for each in questions_of_callers()]
    while hanging.asked < len(asked):
        await sleep(loop, 0.01)
    assert not any(each.called for each in asked)
    world.clock.advance(questions.PATIENCE)
    for each in asked:
        with pytest.raises(HypervisorSilent):
            await each
    # While the hypervisor hangs, the same questions are not asked again.
    for question in questions_of_callers():
        with pytest.raises(HypervisorSilent):
            await question
    assert hanging.asked == len(asked)
    hanging.answering.finish(None)
    await sleep(loop, 0.01)
    assert [found.id for found, _ in await world.servers.listed(ANN)] == [server.id]
    assert await world.servers.console(ANN, server.uuid, None) == READY.decode()


@implementer(IPoweringHypervisor)
class Plain:
    """A hypervisor in memory without config drives, which may fall silent.

    :ivar asked: True once a change of power was requested.
    :ivar is_silent: True to make changes without an answer.
    """

    def __init__(self, servers: dict[str, MemoryServer]) -> None:
        self._within = MemoryHypervisor("h", loop, servers)
        self.asked = False
        self.is_silent = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._within, name)

    async def power_off(self, server: str, ask: bool) -> None:
        """See :meth:`bootvol.interfaces.IPoweringHypervisor.power_off`."""
        await self._within.power_off(server, ask)
        await self._answer()

    async def start(self, server: str, machine: Machine) -> None:
        """See :meth:`bootvol.interfaces.IHypervisor.start`."""
        await self._within.start(server, machine)
        await self._answer()

    async def _answer(self) -> None:
        if self.is_silent:
            self.asked = True
            await Deferred()


@pytest.mark.parametrize(
    "more", [{"key_name": "mine"}, {"user_data": "eA=="}, {"user_data": ""}, {"config_drive": True}]
)
@ensureDeferred
async def test_what_guests_cannot_be_given_is_refused(world: World, more: dict[str, Any]) -> None:
    volume = await world.volume()
    await world.worker.stopService()
    world.hypervisor = Plain(world.hypervisor.servers)
    world.restart()
    wanted = NewServer("x", "1", (NewDisk("vda", volume),), **more)
    with pytest.raises(NotForGuests):
        await world.servers.create(ANN, wanted)
    assert (await world.volumes.get(ANN, volume)).status is Status.AVAILABLE
    made = await world.boot(volume)
    assert not (await world.server(made.id, Status.AVAILABLE)).config_drive


@pytest.mark.parametrize(
    ("action", "meanwhile", "runs"),
    [
        (Event.STOP, Status.STOPPING, False),
        (Event.START, Status.STARTING, True),
        (Event.REBOOT, Status.REBOOTING, True),
        (Event.RESET, Status.RESETTING, True),
    ],
)
@ensureDeferred
async def test_the_next_daemon_ends_what_was_asked_of_a_servers_power(
    world: World, action: Event, meanwhile: Status, runs: bool
) -> None:
    """The daemon ends after the hypervisor has begun, and before the answer."""
    await world.worker.stopService()
    silent = world.hypervisor = Plain(world.hypervisor.servers)
    world.restart()
    server, volume = await world.started()
    number = str(server.id)
    if action is Event.START:
        await world.servers.power(ANN, number, Event.STOP)
        await world.server(server.id, Status.AVAILABLE)
    silent.is_silent = True
    await world.servers.power(ANN, number, action)
    await until(lambda: silent.asked)
    await world.worker.stopService()
    assert (await world.servers.get(ANN, number))[0].status is meanwhile
    world.hypervisor = Plain(silent.servers)
    world.restart()
    found = await world.server(server.id, Status.AVAILABLE)
    assert found.error is None
    assert (await world.servers.get(ANN, number))[1] is runs
    assert (await world.volumes.get(ANN, volume)).status is Status.IN_USE


def _set_host(db: Db, volume: int, host: str) -> None:
    db.execute(update(schema.volumes).where(schema.volumes.c.id == volume).values(host=host))


@ensureDeferred
async def test_a_volume_of_another_host_is_not_attached(world: World) -> None:
    """The server would never get the disk."""
    server, _ = await world.started()
    volume = await world.volume()
    await world.database.write(daemons.announce, "d", "A")
    await world.database.write(_set_host, volume, "B")
    with pytest.raises(VolumeElsewhere, match="on host B only"):
        await world.attachments.create(ANN, str(server.id), volume, None)
    assert (await world.volumes.get(ANN, volume)).status is Status.AVAILABLE
    # The daemon has a new name of its host, and the volume is there.
    await world.database.write(daemons.announce, "d", "B")
    assert (await world.attachments.create(ANN, str(server.id), volume, None)).device == "/dev/vdb"


@ensureDeferred
async def test_a_server_needs_volumes_of_one_host(world: World) -> None:
    volumes = [await world.volume() for _ in range(3)]
    for volume, host in zip(volumes, ("", "A", "B"), strict=True):
        await world.database.write(_set_host, volume, host)
    with pytest.raises(VolumeElsewhere):
        await world.boot(*volumes)
    assert await world.servers.listed(ANN) == []
    # A daemon of host A starts this one.
    made = await world.boot(*volumes[:2])
    await world.volume()
    assert (await world.servers.get(ANN, str(made.id)))[0].status is Status.CREATING
    await world.database.write(_set_host, volumes[1], "")
    world.worker.wake()
    await world.server(made.id, Status.AVAILABLE)


@ensureDeferred
async def test_a_server_says_why_no_daemon_builds_it(world: World) -> None:
    volume = await world.volume()
    await world.database.write(_set_host, volume, "B")
    number = str((await world.boot(volume)).id)

    async def reasons() -> list[str | None]:
        shown = [await world.servers.get(ANN, number), *await world.servers.listed(ANN)]
        return [server.error.code if server.error else None for server, _ in shown]

    assert await reasons() == ["host-away"] * 2
    await world.database.write(daemons.announce, "b", "B")
    assert await reasons() == ["host-runs-no-servers"] * 2
    await world.database.write(daemons.announce, "b", "B", serves=True)
    assert await reasons() == [None] * 2
