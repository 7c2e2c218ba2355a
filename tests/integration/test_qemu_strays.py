"""Servers of QEMU with folders that somebody changed by hand while the servers run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred

from bootvol.errors import HypervisorFailed
from bootvol.model import ConnectionInfo, Disk
from bootvol.threads import Threads
from bootvol_plugins.qemu import strays
from bootvol_plugins.qemu.folders import Folder
from bootvol_plugins.qemu.hypervisor import QemuHypervisor
from tests.daemons import pause
from tests.machines import disk_file, hypervisor, machine, server_name
from tests.waiting import block_until

SERVER, OTHER = server_name(), server_name()


def remove(folder: Path) -> None:
    """Remove the folder of a server."""
    shutil.rmtree(folder)


def remove_directory(folder: Path) -> None:
    """Remove the folders of all servers."""
    shutil.rmtree(folder.parent)


def replace(folder: Path) -> None:
    """Put an empty folder in the place of a server's folder."""
    shutil.rmtree(folder)
    folder.mkdir(0o700)


def empty_folder(folder: Path) -> None:
    """Remove all files in the folder of a server."""
    for path in folder.iterdir():
        path.unlink()


def remove_locks(folder: Path) -> None:
    """Remove the note of the process and the locked file, and keep the socket."""
    (folder / "process").unlink()
    (folder / "pid").unlink()


def remove_socket(folder: Path) -> None:
    """Remove the socket of QEMU's commands."""
    (folder / "qmp").unlink()


def pid_of(folder: Path) -> int:
    """Return the process id of the server in a folder."""
    opened = Folder(folder)
    try:
        found = opened.process()
        assert found is not None
        return found
    finally:
        opened.close()


@pytest.mark.parametrize(
    "change", [remove, remove_directory, replace, empty_folder, remove_locks, remove_socket]
)
@pytest.mark.parametrize("off", [False, True])
@ensureDeferred
async def test_a_server_whose_folder_was_changed_is_ended(
    qemu: QemuHypervisor,
    empty: ConnectionInfo,
    tmp_path: Path,
    threads: Threads,
    change: Callable[[Path], None],
    off: bool,
) -> None:
    """No process outlives its server, and keeps the disks, because files were removed.

    Break: `plugins/bootvol_plugins/qemu/strays.py`: `in places]` -> `in ()]`.
    """
    await qemu.start(SERVER, machine(empty))
    pid = pid_of(tmp_path / "servers" / SERVER)
    change(tmp_path / "servers" / SERVER)
    # A later daemon remembers nothing.
    again = hypervisor(tmp_path, threads, shutdown_timeout=1)
    assert list(await again.running()) == [SERVER]
    await (again.power_off(SERVER, True) if off else again.stop(SERVER))
    assert not Path(f"/proc/{pid}").exists()
    assert not await again.running()
    await again.start(OTHER, machine(empty))
    await again.stop(OTHER)


@pytest.mark.parametrize("change", [remove, remove_directory, replace])
@ensureDeferred
async def test_no_disk_of_a_lost_server_counts_as_detached(
    qemu: QemuHypervisor, empty: ConnectionInfo, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    """Break: `plugins/bootvol_plugins/qemu/hypervisor.py`: `await self._strays.refuse(server)` ->
    `pass`
    """
    await qemu.start(SERVER, machine(empty))
    directory = tmp_path / "servers"
    pid = pid_of(directory / SERVER)
    change(directory / SERVER)
    for call in (qemu.detach(SERVER, "vda"), qemu.attach(SERVER, Disk("vdb", empty))):
        with pytest.raises(HypervisorFailed, match=f"Process {pid} runs .*stop the server"):
            await call
    directory.mkdir(exist_ok=True)
    # The server is turned on again: one process runs, and the folder knows the process.
    await qemu.start(SERVER, machine(empty))
    assert not Path(f"/proc/{pid}").exists()
    assert list(await qemu.running()) == [SERVER]
    assert pid_of(directory / SERVER) != pid


@ensureDeferred
async def test_a_server_in_another_directory_is_refused(
    qemu: QemuHypervisor, empty: ConnectionInfo, tmp_path: Path
) -> None:
    """The process may be another daemon's, so nobody ends the process."""
    await qemu.start(SERVER, machine(empty))
    folder, moved = tmp_path / "servers" / SERVER, tmp_path / "moved"
    pid = pid_of(folder)
    folder.rename(moved)
    for call in (qemu.stop(SERVER), qemu.start(SERVER, machine(empty)), qemu.detach(SERVER, "vda")):
        with pytest.raises(HypervisorFailed, match=f"Process {pid} runs .* in {moved}"):
            await call
    shutil.rmtree(folder, ignore_errors=True)
    moved.rename(folder)
    await qemu.stop(SERVER)
    assert not Path(f"/proc/{pid}").exists()


@ensureDeferred
async def test_a_server_that_starts_is_waited_for(
    qemu: QemuHypervisor, empty: ConnectionInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A root daemon without CAP_SYS_PTRACE sees no working directories.

    A process just started by an earlier daemon is unknown to its folder for a moment.
    """
    monkeypatch.setattr(strays, "_folder", lambda _pid: "")
    await qemu.start(SERVER, machine(empty))
    folder = tmp_path / "servers" / SERVER
    pid = pid_of(folder)
    for name in ("process", "pid"):
        (folder / name).rename(tmp_path / name)
    for call in (qemu.start(SERVER, machine(empty)), qemu.stop(SERVER)):
        waiting = Deferred.fromCoroutine(call)
        await pause(0.5)
        assert not waiting.called
        (tmp_path / "pid").rename(folder / "pid")
        await waiting
        if Path(f"/proc/{pid}").exists():
            (folder / "pid").rename(tmp_path / "pid")
            (folder / "process").unlink()
    assert not Path(f"/proc/{pid}").exists()


@ensureDeferred
async def test_a_server_that_takes_the_name_of_another_hinders_nobody(
    qemu: QemuHypervisor, tmp_path: Path
) -> None:
    """A guest in control of QEMU may write any name into QEMU's command.

    Break: `plugins/bootvol_plugins/qemu/strays.py`: `if each.process.pid not in known]` -> `]`.
    """
    command = [sys.executable, "-c", "import time; time.sleep(600)", "-name", SERVER]
    with subprocess.Popen(command, cwd="/") as process:
        try:
            block_until(lambda: SERVER in Path(f"/proc/{process.pid}/cmdline").read_text())
            with pytest.raises(HypervisorFailed, match=f"Process {process.pid} runs "):
                await qemu.stop(SERVER)
            folder = Folder.make(tmp_path / "servers" / OTHER)
            folder.note(process.pid)
            folder.close()
            await qemu.stop(SERVER)
            disk = disk_file(tmp_path / "disk.raw")
            await qemu.start(SERVER, machine(disk))
            assert sorted(await qemu.running()) == sorted([SERVER, OTHER])
            assert process.poll() is None
        finally:
            process.kill()
    assert os.listdir(tmp_path / "servers")
