"""A backend with another store than its volumes' changes nothing there."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred
from sqlalchemy import make_url
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.logger import LogLevel, capturedLogs

from bootvol import database_checks, machine, plugins, settings
from bootvol.errors import ConfigurationError
from bootvol.store.database import Database
from bootvol.testing.backends import noise
from bootvol.worker import export_recovery, stores
from bootvol_plugins.file import FileBackend
from bootvol_plugins.file_store import STORE
from tests.daemons import Running, pause, reactor, volumes_in
from tests.disks import disk, without_a_server
from tests.exports import server
from tests.processes import cli

MIB = 1024 * 1024
CONTENT = noise(2 * MIB)
SECOND = """
[[backends]]
name = "second"
plugin = "file"
directory = "second"
"""


async def reason(daemon: Running, number: int) -> str:
    """Wait until a volume waits for its backend; return the code of the reason."""
    while True:
        shown = await daemon.call("GET", f"os-volumes/{number}/error")
        if (error := shown.json["error"]) is not None:
            break
        await pause(0.05)
    assert await daemon.status(number) != "error"
    code: str = error["code"]
    return code


@ensureDeferred
async def test_another_directory_is_not_touched_while_the_daemon_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "POLL", 0.3)
    running = Running(tmp_path)
    try:
        await _is_not_touched(running)
    finally:
        await running.stop()


async def _is_not_touched(running: Running) -> None:
    (running.images / "disk").write_bytes(CONTENT)
    kept, gone = await running.create("disk"), await running.create()
    for number in (kept, gone):
        await running.until(number, "available")
    right = running.folder / "right"
    running.volumes.rename(right)
    before = volumes_in(right)
    running.volumes.mkdir()
    (running.volumes / before[0].name).write_bytes(b"another's")
    with capturedLogs() as logged:
        asked = [await running.create("disk")]
        assert await reason(running, asked[0]) == "wrong-store"
        await running.call("DELETE", f"os-volumes/{gone}")
        assert await reason(running, gone) == "wrong-store"
        # Another store that also belongs to bootvol.
        (running.volumes / STORE).write_text("another\n")
        asked.append(await running.create("disk"))
        assert await reason(running, asked[1]) == "wrong-store"
        await pause(3 * stores.POLL)
    told = [each for each in logged if each["log_level"] is LogLevel.error]
    assert [each["name"] for each in told] == ["local"], "it is told once"
    (running.volumes / STORE).unlink()
    assert [each.read_bytes() for each in running.volumes.iterdir()] == [b"another's"]
    assert volumes_in(right) == before
    shutil.rmtree(running.volumes)
    right.rename(running.volumes)
    for number in asked:
        assert await running.until(number, "available", "error") == "available"
    assert await running.until(gone, "gone", "error") == "gone"
    assert await running.status(kept) == "available"


@ensureDeferred
async def test_a_file_system_whose_server_has_died(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Work waits until the server is back, as with a missing directory."""
    monkeypatch.setattr(stores, "POLL", 0.3)
    (running.images / "disk").write_bytes(CONTENT)
    old = await running.create("disk")
    await running.until(old, "available")
    with without_a_server(running.volumes):
        made = await running.create("disk")
        assert await reason(running, made) == "wrong-store"
        await running.call("DELETE", f"os-volumes/{old}")
        assert await reason(running, old) == "wrong-store"
    assert await running.until(made, "available", "error") == "available"
    assert await running.until(old, "gone", "error") == "gone"


@ensureDeferred
async def test_a_disk_that_is_not_mounted_any_more(tmp_path: Path) -> None:
    with disk(tmp_path / "volumes", 2048 * MIB, "ext4") as mounted:
        daemon = Running(tmp_path)
        (daemon.images / "disk").write_bytes(CONTENT)
        number = await daemon.create("disk")
        assert await daemon.until(number, "available", "error") == "available"
        await daemon.call("DELETE", f"os-volumes/{number}")
        await daemon.stop()
        mounted.unmount()
        with pytest.raises(ConfigurationError, match=r"is no store yet\. Mount the right disk"):
            Running(tmp_path)
        assert list(daemon.volumes.iterdir()) == []
        mounted.mount()
        again = Running(tmp_path)
        await again.until(number, "gone")
        made = await again.create("disk")
        assert await again.until(made, "available", "error") == "available"
        await again.stop()


@ensureDeferred
async def test_a_backend_that_hangs_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "PATIENCE", 0.5)
    monkeypatch.setattr(stores, "POLL", 0.3)
    with disk(tmp_path / "volumes", 2048 * MIB, "ext4") as mounted:
        first = Running(tmp_path, SECOND)
        (first.images / "disk").write_bytes(CONTENT)
        kind = {"volume_type": {"name": "fast", "extra_specs": {"volume_backend_name": "second"}}}
        assert (await first.call("POST", "os-volume-types", kind, "root")).status == 200
        old = await first.create()
        await first.until(old, "available")
        await first.stop()
        with mounted.frozen():
            with capturedLogs() as logged:
                daemon = Running(tmp_path, SECOND)
            told = [each["name"] for each in logged if each["log_level"] is LogLevel.error]
            assert told == ["local"]
            made = await daemon.create("disk")
            assert await reason(daemon, made) == "backend-silent"
            await daemon.call("DELETE", f"os-volumes/{old}")
            assert await reason(daemon, old) == "backend-silent"
            wanted = {"size": 1, "imageRef": "disk", "volume_type": "fast"}
            fast = await daemon.call("POST", "os-volumes", {"volume": wanted})
            assert await daemon.until(fast.json["volume"]["id"], "available", "error") != "error"
            # The daemon can stop and start meanwhile.
            await daemon.stop()
            daemon = Running(tmp_path, SECOND)
        assert await daemon.until(made, "available", "error") == "available"
        assert await daemon.until(old, "gone", "error") == "gone"
        (file,) = daemon.files()[-1:]
        with file.open("rb") as volume:
            assert volume.read(len(CONTENT)) == CONTENT
        await daemon.stop()


@ensureDeferred
async def test_what_is_attached_is_served_when_its_backend_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "PATIENCE", 0.5)
    monkeypatch.setattr(stores, "POLL", 0.3)
    with (
        tempfile.TemporaryDirectory() as short,
        disk(tmp_path / "volumes", 2048 * MIB, "ext4") as mounted,
    ):
        exports = f'[exports]\nby = "unix"\ndirectory = "{short}/e"\n'
        first = Running(tmp_path, exports)
        number = await first.create()
        await first.until(number, "available")
        place = "servers/1/os-volume_attachments"
        wanted = {"volumeAttachment": {"volumeId": number, "device": "/dev/vdb"}}
        await first.call("POST", place, wanted)
        await first.until(number, "in-use")
        (name,) = [each.stem for each in first.files() if each.suffix == ".raw"]
        await first.stop()
        # As after a restart of the machine.
        await server(Path(short), name).end(reactor, 30)
        with mounted.frozen():
            daemon = Running(tmp_path, exports)
            assert not server(Path(short), name).runs()
        while not server(Path(short), name).runs():
            await pause(0.05)
        assert (await daemon.call("DELETE", f"{place}/{number}")).status == 202
        assert await daemon.until(number, "available", "error") == "available"
        assert not list((Path(short) / "e").glob(f"{name}*"))
        await daemon.stop()


@ensureDeferred
async def test_work_begins_where_a_volume_cannot_be_served_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk hangs while attached volumes are served again: other backends do not wait."""
    monkeypatch.setattr(export_recovery, "SERVING", 0.5)
    monkeypatch.setattr(stores, "POLL", 0.3)
    with (
        tempfile.TemporaryDirectory() as short,
        disk(Path(short) / "d", 64 * MIB, "ext4") as mounted,
    ):
        more = f'[exports]\nby = "unix"\ndirectory = "{short}/d/e"\n{SECOND}'
        first = Running(tmp_path, more)
        kind = {"volume_type": {"name": "fast", "extra_specs": {"volume_backend_name": "second"}}}
        assert (await first.call("POST", "os-volume-types", kind, "root")).status == 200
        number = await first.create()
        await first.until(number, "available")
        wanted = {"volumeAttachment": {"volumeId": number, "device": "/dev/vdb"}}
        await first.call("POST", "servers/1/os-volume_attachments", wanted)
        await first.until(number, "in-use")
        (name,) = [each.stem for each in first.files() if each.suffix == ".raw"]
        await first.stop()
        await server(mounted.folder, name).end(reactor, 30)
        daemon = Running(tmp_path, more)
        with mounted.frozen():
            fast = await daemon.call(
                "POST", "os-volumes", {"volume": {"size": 1, "volume_type": "fast"}}
            )
            assert await daemon.until(fast.json["volume"]["id"], "available", "error") != "error"
        while not server(mounted.folder, name).runs():
            await pause(0.05)
        await daemon.call("DELETE", f"servers/1/os-volume_attachments/{number}")
        assert await daemon.until(number, "available", "error") == "available"
        await daemon.stop()


@ensureDeferred
async def test_a_backend_that_hung_at_the_start_and_has_another_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "PATIENCE", 0.5)
    monkeypatch.setattr(stores, "POLL", 0.3)
    with disk(tmp_path / "volumes", 2048 * MIB, "ext4") as mounted:
        first = Running(tmp_path)
        await first.until(await first.create(), "available")
        await first.stop()
        right = (first.volumes / STORE).read_text()
        (first.volumes / STORE).write_text("another")
        with mounted.frozen():
            daemon = Running(tmp_path)
        made = await daemon.create()
        while await reason(daemon, made) == "backend-silent":
            await pause(0.05)
        assert await reason(daemon, made) == "wrong-store"
        shown = await daemon.call("GET", f"os-volumes/{made}/error")
        assert str(tmp_path) not in shown.body.decode(), "that is the operator's"
        (first.volumes / STORE).write_text(right)
        assert await daemon.until(made, "available", "error") == "available"
        await daemon.stop()


@ensureDeferred
async def test_two_daemons_do_not_take_two_directories_for_one(
    tmp_path: Path, new_postgresql: Callable[[], str]
) -> None:
    url = new_postgresql()
    Database(make_url(url).set(drivername="postgresql+psycopg"), reactor).upgrade()
    state = f'url = "{url}"\ndirectory = "."'
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    shared = "shared = true"
    first = Running(tmp_path / "one", state=state, backend=shared)
    assert await first.until(await first.create(), "available", "error") == "available"
    with pytest.raises(ConfigurationError, match="forget-store local"):
        Running(tmp_path / "other", state=state, backend=shared)
    await first.stop()


def _store_faults(daemon: Running) -> list[machine.Finding]:
    """Return what `check-config --machine` says about the stores of a daemon."""
    found = machine.examine(settings.load(daemon.config), reactor)
    return [each for each in found if "forget-store" in each.line]


@ensureDeferred
async def test_an_operator_accepts_another_directory(tmp_path: Path) -> None:
    daemon = Running(tmp_path)
    assert await daemon.until(await daemon.create(), "available", "error") == "available"
    await daemon.stop()
    assert _store_faults(daemon) == []
    (daemon.volumes / STORE).unlink()
    (fault,) = _store_faults(daemon)
    assert fault.fatal
    assert "leads to no store yet. Mount the right disk" in fault.line
    with pytest.raises(ConfigurationError, match="forget-store local"):
        Running(tmp_path)
    forget = ["db", "forget-store", "--config", str(daemon.config)]
    unknown = await deferToThread(cli, *forget, "other")
    assert (unknown.returncode, unknown.stderr.count("\n")) == (4, 1)
    done = await deferToThread(cli, *forget, "local")
    assert done.returncode == 0, done.stderr
    again = Running(tmp_path)
    assert await again.until(await again.create(), "available", "error") == "available"
    await again.stop()


@ensureDeferred
async def test_a_directory_of_an_earlier_version_is_taken_as_it_is(tmp_path: Path) -> None:
    daemon = Running(tmp_path)
    number = await daemon.create()
    assert await daemon.until(number, "available", "error") == "available"
    await daemon.stop()
    (daemon.volumes / STORE).unlink()
    with sqlite3.connect(tmp_path / "bootvol.db") as db:
        db.execute("DELETE FROM stores")
    again = Running(tmp_path)
    await again.call("DELETE", f"os-volumes/{number}")
    await again.until(number, "gone")
    await again.stop()
    assert [each.name for each in daemon.volumes.iterdir()] == [STORE]


@ensureDeferred
async def test_a_copy_of_a_daemons_state_is_refused(tmp_path: Path) -> None:
    daemon = Running(tmp_path)
    await daemon.stop()
    lock = tmp_path / "daemon.lock"
    name, number = lock.read_text().split()
    shutil.copy(lock, tmp_path / "copy")
    (tmp_path / "copy").rename(lock)
    with pytest.raises(ConfigurationError, match="is a copy of another daemon's"):
        Running(tmp_path)
    # Moved for good, or written by an earlier version.
    lock.write_text(name)
    daemon = Running(tmp_path)
    await daemon.stop()
    assert lock.read_text().split()[0] == name
    assert lock.read_text().split()[1] != number


@ensureDeferred
async def test_a_state_directory_on_a_full_disk_is_refused(tmp_path: Path) -> None:
    with disk(tmp_path / "state", 64 * MIB, "ext4") as mounted:
        (mounted.folder / "daemon.lock").touch()
        with (mounted.folder / "others").open("wb", buffering=0) as others, suppress(OSError):
            while True:
                others.write(bytes(4096))
        state = f'url = "sqlite:///{tmp_path}/bootvol.db"\ndirectory = "state"'
        with pytest.raises(ConfigurationError, match=r"daemon\.lock: No space left on device"):
            Running(tmp_path, state=state)
        (mounted.folder / "others").unlink()
        daemon = Running(tmp_path, state=state)
        await daemon.stop()


@pytest.mark.parametrize(("kind", "mode"), [("btrfs", "truncate"), ("ext4", "wal")])
@ensureDeferred
async def test_no_full_disk_ends_the_process(tmp_path: Path, kind: str, mode: str) -> None:
    """On a full btrfs, a change of the index that SQLite maps into memory causes SIGBUS.

    A database with a write-ahead log, as earlier versions wrote it, changes at the start.
    """
    with disk(tmp_path / "state", 512 * MIB, kind) as mounted:
        file = mounted.folder / "bootvol.db"
        with closing(sqlite3.connect(file)) as earlier:
            earlier.execute("PRAGMA journal_mode=WAL")
            earlier.execute("CREATE TABLE others (number INTEGER)")
        database = Database(make_url(f"sqlite:///{file}"), reactor)
        database.upgrade()
        found = database.alone(lambda db: db.exec_driver_sql("PRAGMA journal_mode").scalar())
        assert found == mode


@ensureDeferred
async def test_a_database_on_a_full_disk_is_refused(tmp_path: Path) -> None:
    with disk(tmp_path / "state", 64 * MIB, "ext4") as mounted:
        state = 'url = "sqlite:///state/bootvol.db"\ndirectory = "."'
        daemon = Running(tmp_path, state=state)
        await daemon.stop()
        mounted.fill_up(mounted.folder / "others")
        file = mounted.folder / "bootvol.db"
        (warned,) = database_checks.check(make_url(f"sqlite:///{file}"), reactor)
        assert str(warned) == f"state.url: '{file}': the disk is full. Free space on the disk."
        with pytest.raises(ConfigurationError) as caught:
            Running(tmp_path, state=state)
        assert str(caught.value).startswith(f"state.url: {file}: the database cannot be upgraded: ")
        assert str(caught.value).endswith(". The disk is full: free space there.")
        (mounted.folder / "others").unlink()
        daemon = Running(tmp_path, state=state)
        await daemon.stop()


@pytest.mark.parametrize(
    ("state", "key"),
    [
        ('url = "sqlite:///bootvol.db"\ndirectory = "state"', "state.directory"),
        ('url = "sqlite:///state/bootvol.db"\ndirectory = "."', "state.url"),
    ],
)
@ensureDeferred
async def test_a_start_ends_where_the_disk_of_the_state_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, key: str
) -> None:
    monkeypatch.setattr(plugins, "PATIENCE", 0.5)
    with disk(tmp_path / "state", 64 * MIB, "ext4") as mounted:
        with mounted.frozen(), pytest.raises(ConfigurationError, match=key) as caught:
            Running(tmp_path, state=state)
        assert "a disk or a service hangs. Check the disk" in str(caught.value)


@pytest.mark.parametrize("kind", ["volume", "snapshot"])
@ensureDeferred
async def test_data_that_went_missing_is_reported_once(running: Running, kind: str) -> None:
    """The deletion of missing data fails; another deletion removes the record.

    Break: `src/bootvol/worker/tasks/storage.py`: `if missing is not None:` -> `if False:`.
    """
    (running.images / "disk").write_bytes(CONTENT)
    number = await running.create("disk")
    await running.until(number, "available")
    path = "os-volumes"
    if kind == "snapshot":
        number, path = await running.snapshot(number), "os-snapshots"
        await running.until(number, "available", kind=kind)
    (file,) = (each for each in running.files() if each.name.startswith(kind))
    file.unlink()
    assert (await running.call("DELETE", f"{path}/{number}")).status == 202
    assert await running.until(number, "gone", "error", kind=kind) == "error"
    error = (await running.call("GET", f"{path}/{number}/error")).json["error"]
    assert error["code"] == "volume-missing"
    assert file.stem in error["message"]
    assert "delete the volume or snapshot again" in error["remedy"]
    assert (await running.call("DELETE", f"{path}/{number}")).status == 202
    assert await running.until(number, "gone", "error", kind=kind) == "gone"


@ensureDeferred
async def test_a_deletion_that_was_broken_off_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data may be gone by then."""
    daemon = Running(tmp_path)
    number = await daemon.create()
    await daemon.until(number, "available")
    deleted: Deferred[None] = Deferred()
    delete = FileBackend.delete

    async def delete_and_hang(backend: FileBackend, volume: str) -> None:
        await delete(backend, volume)
        deleted.callback(None)
        await Deferred()

    monkeypatch.setattr(FileBackend, "delete", delete_and_hang)
    await daemon.call("DELETE", f"os-volumes/{number}")
    await deleted
    assert daemon.files() == []
    await daemon.stop()
    monkeypatch.undo()
    again = Running(tmp_path)
    try:
        assert await again.until(number, "gone", "error") == "gone"
    finally:
        await again.stop()


@ensureDeferred
async def test_something_else_in_the_place_of_data_is_no_data(running: Running) -> None:
    """The deletion reports the missing data; another deletion removes what is there."""
    number = await running.create()
    await running.until(number, "available")
    (file,) = running.files()
    file.unlink()
    file.symlink_to(running.folder / "nowhere")
    await running.call("DELETE", f"os-volumes/{number}")
    assert await running.until(number, "gone", "error") == "error"
    await running.call("DELETE", f"os-volumes/{number}")
    assert await running.until(number, "gone", "error") == "gone"
    assert running.files() == []
