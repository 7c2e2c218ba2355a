"""Servers as processes of QEMU: properties invisible to the contract suite."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from bootvol.errors import HypervisorFailed
from bootvol.jail import FIRST_USER, may_limit
from bootvol.model import ConnectionInfo, Disk
from bootvol.threads import Threads
from bootvol_plugins.qemu import console
from bootvol_plugins.qemu.folders import Folder
from bootvol_plugins.qemu.hypervisor import QemuHypervisor
from bootvol_plugins.qemu.machine import MONITOR
from tests import guest
from tests.daemons import pause
from tests.jails import ANOTHER, PYTHON, ROOT, attacks
from tests.machines import MIB, disk_file, hypervisor, machine, says, server_name
from tests.waiting import LONG_LIMIT, until

SERVER, OTHER = server_name(), server_name()


async def gone(qemu: QemuHypervisor, server: str) -> None:
    """Wait until a server has stopped."""
    await until(qemu.running, lambda found: server not in found)


@contextmanager
def process(folder: Path, server: str = SERVER) -> Iterator[int]:
    """Return the process id of a running server."""
    opened = Folder(folder / "servers" / server)
    try:
        found = opened.process()
        assert found is not None
        yield found
    finally:
        opened.close()


@ensureDeferred
async def test_its_process_is_locked_up(
    qemu: QemuHypervisor, empty: ConnectionInfo, tmp_path: Path
) -> None:
    """QEMU has no rights, no core files, and a filter of system calls.

    Break: `src/bootvol/jail/program/__init__.py`: `_PR_CAPBSET_DROP, capability` ->
    `_PR_CAPBSET_DROP, 63`.
    """
    await qemu.start(SERVER, machine(empty))
    with process(tmp_path) as pid:
        assert os.getsid(pid) == pid
        status = Path(f"/proc/{pid}/status").read_text()
        assert "NoNewPrivs:\t1" in status
        assert "Seccomp:\t2" in status
        for kind in "Inh", "Prm", "Eff", "Bnd", "Amb":
            assert f"Cap{kind}:\t{0:016x}" in status
        uid = os.geteuid()
        user = FIRST_USER + pid if uid == 0 else uid
        assert f"Uid:\t{user}\t{user}\t{user}\t{user}\n" in status
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert re.search(r"^Max core file size +0 +0 ", limits, re.MULTILINE)
    assert (tmp_path / "servers").joinpath(SERVER).stat().st_mode & 0o777 == 0o700


@ensureDeferred
async def test_the_keeper_of_a_console_is_locked_up(
    qemu: QemuHypervisor, empty: ConnectionInfo, tmp_path: Path
) -> None:
    """The program that keeps a server's console has no rights, and opens no files and sockets.

    Break: `plugins/bootvol_plugins/qemu/console.py`: `program.stay(sys.argv[2:])` -> `pass`.
    """
    await qemu.start(SERVER, machine(empty))
    folder = tmp_path / "servers" / SERVER

    def keepers() -> list[Path]:
        found = []
        for each in Path("/proc").glob("[0-9]*/cmdline"):
            # Other processes come and go.
            with suppress(FileNotFoundError, ProcessLookupError):
                ours = console.__file__.encode() in each.read_bytes()
                if ours and os.readlink(each.parent / "cwd") == str(folder):
                    found.append(each.parent)
        return found

    # A new process has the command line of its parent at first.
    (keeper,) = await until(keepers)
    # The program confines itself, and then reads the console.
    status = await until((keeper / "status").read_text, lambda text: "Seccomp:\t2" in text)
    assert "NoNewPrivs:\t1" in status
    assert f"CapEff:\t{0:016x}" in status
    uid = os.geteuid()
    user = FIRST_USER + int(keeper.name) if uid == 0 else uid
    assert f"Uid:\t{user}\t{user}\t{user}\t{user}\n" in status
    await says(qemu, SERVER, "No bootable device.")


@pytest.mark.parametrize("user", [ROOT, ANOTHER])
def test_nothing_is_reached_from_a_server(user: int) -> None:
    """The daemon's files, other volumes, other processes and the network are out of reach, also
    under another user.

    Break: `plugins/bootvol_plugins/qemu/hypervisor.py`: `command = self._jail.command(command,
    bounds)` -> `pass`
    Break: `plugins/bootvol_plugins/qemu/machine.py`: `grows=_largest(given) if` -> `grows=None if`
    Break: `plugins/bootvol_plugins/qemu/machine.py`:
    `limits=machine_limits(machine.memory_mib, sockets)` -> `limits={"CORE": 0}`
    Break: `src/bootvol/jail/__init__.py`: `, "NOFILE": FILES}` -> `, "NOFILE": 10000}`
    Break: `src/bootvol/jail/program/calls.py`: `for option in _LARGER:` -> `for option in ():`.
    Break: `src/bootvol/jail/program/calls.py`: `calls.refuse("mmap", ` ->
    `calls.refuse("munlock", `
    Break: `src/bootvol/jail/program/calls.py`: `memfd_create memfd_secret` -> `memfd_secret`
    Break: `src/bootvol/jail/program/calls.py`: `(1, _MASKED_EQ, _INT, _SOCKET)` ->
    `(1, _EQ, _SOCKET, 0)`
    Break: `src/bootvol/jail/program/calls.py`:
    `calls.refuse("clone", (0, _MASKED_EQ, _CLONE_FILES, 0))` -> `pass`
    Break: `src/bootvol/jail/program/calls.py`: `calls.refuse(_CLOSE_RANGE, ` ->
    `calls.refuse("munlock", `
    Break: `src/bootvol/jail/program/calls.py`: `calls.refuse("seccomp", *own)` -> `pass`
    Break: `src/bootvol/jail/program/calls.py`:
    `calls.refuse("prctl", (0, _MASKED_EQ, _INT, _PR_SET_SECCOMP))` -> `pass`
    Break: `src/bootvol/jail/program/calls.py`: `469, 444, 445, 446)` -> `469)`
    Break: `src/bootvol/jail/__init__.py`: `_LOCKED: Final = 1024 * 1024` ->
    `_LOCKED: Final = 1 << 40`
    """
    assert attacks("guest", user) == ["writes_what_it_has_open", *grows(user)]


def grows(user: int) -> list[str]:
    """Return the attacks of a server's QEMU that no daemon of the user can prevent."""
    return [] if user == ANOTHER or may_limit() else ["grows_what_it_has_open"]


@pytest.mark.parametrize("user", [ROOT, ANOTHER])
def test_little_is_reached_from_a_server_whose_disk_is_exported(user: int) -> None:
    """Under a root daemon, QEMU reaches only the export; under another one, all sockets of the
    daemon's user whose names QEMU knows, but QEMU finds no names.

    Break: `plugins/bootvol_plugins/qemu/machine.py`: `writes=kvm,` -> `writes=kvm,
    reads=[Path("/")],`.
    Break: `plugins/bootvol_plugins/qemu/machine.py`: `return Sockets.UNIX if here` -> `return
    Sockets.ALL if here`
    Break: `plugins/bootvol_plugins/qemu/folders.py`: `flags = os.O_RDONLY | os.O_CREAT` -> `flags =
    os.O_RDWR | os.O_CREAT`
    """
    connected = ["connects_by_path", "connects_beside_its_own"] if user == ANOTHER else []
    assert attacks("served", user) == connected


@pytest.mark.parametrize("user", [ROOT, ANOTHER])
def test_little_is_reached_from_a_server_whose_disk_is_an_image_of_ceph(user: int) -> None:
    """QEMU reaches only the network, by any number of sockets.

    Break: `plugins/bootvol_plugins/qemu/hypervisor.py`: `command = self._jail.command(command,
    bounds)` -> `pass`
    """
    network = ["connects_by_tcp", "sends_by_udp", "takes_memory_in_sockets"]
    assert attacks("image", user) == network


@ensureDeferred
async def test_a_server_outlives_a_daemon_that_is_killed(
    qemu: QemuHypervisor, empty: ConnectionInfo, tmp_path: Path
) -> None:
    daemon = _daemon(tmp_path, empty)
    assert await deferToThread(_line, daemon) == b"started\n"
    await deferToThread(_kill, daemon)
    assert list(await qemu.running()) == [SERVER]
    await says(qemu, SERVER, "No bootable device.")
    await qemu.start(SERVER, machine(empty))
    with process(tmp_path) as pid:
        assert os.getsid(pid) == pid
    await qemu.stop(SERVER)
    assert not list((tmp_path / "servers").iterdir())


@ensureDeferred
async def test_a_daemon_is_killed_while_it_starts_a_server(
    qemu: QemuHypervisor, empty: ConnectionInfo, tmp_path: Path
) -> None:
    for delay in (0.0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2):
        for again in (True, False):
            daemon = _daemon(tmp_path, empty)
            await pause(delay)
            await deferToThread(_kill, daemon)
            if again:
                # The server has come up, or is started now. In both cases, one server runs.
                await qemu.start(SERVER, machine(empty))
                assert list(await qemu.running()) == [SERVER]
            await qemu.stop(SERVER)
            assert not await qemu.running()
            # No process of the server holds the disk.
            await qemu.start(OTHER, machine(empty))
            await qemu.stop(OTHER)


def _daemon(folder: Path, disk: ConnectionInfo) -> subprocess.Popen[bytes]:
    """Start a daemon that starts a server; wait for the beginning of the start."""
    command = [sys.executable, "-m", "tests.machines", str(folder), SERVER, disk.address]
    daemon = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert _line(daemon) == b"starting\n"
    return daemon


def _line(daemon: subprocess.Popen[bytes]) -> bytes:
    assert daemon.stdout is not None
    return daemon.stdout.readline()


def _kill(daemon: subprocess.Popen[bytes]) -> None:
    with daemon:
        daemon.kill()


@ensureDeferred
async def test_a_server_that_is_killed_does_not_run(
    qemu: QemuHypervisor, empty: ConnectionInfo, tmp_path: Path
) -> None:
    await qemu.start(SERVER, machine(empty))
    await says(qemu, SERVER, "No bootable device.")
    with process(tmp_path) as pid:
        os.kill(pid, signal.SIGKILL)
    await gone(qemu, SERVER)
    assert b"No bootable device." in await qemu.console(SERVER, MIB)
    with pytest.raises(HypervisorFailed, match="does not run"):
        await qemu.attach(SERVER, Disk("vdb", empty))
    await qemu.detach(SERVER, "vda")
    await qemu.start(SERVER, machine(empty))
    assert list(await qemu.running()) == [SERVER]


@ensureDeferred
async def test_a_server_that_hangs_is_ended_all_the_same(
    qemu: QemuHypervisor, empty: ConnectionInfo, tmp_path: Path
) -> None:
    await qemu.start(SERVER, machine(empty))
    with process(tmp_path) as pid:
        os.kill(pid, signal.SIGSTOP)
    with pytest.raises(HypervisorFailed, match="does not answer"):
        await qemu.attach(SERVER, Disk("vdb", empty))
    await qemu.stop(SERVER)
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.usefixtures("qemu")
@pytest.mark.parametrize("ask", [True, False])
@ensureDeferred
async def test_a_server_that_hangs_can_be_turned_off(
    tmp_path: Path, threads: Threads, empty: ConnectionInfo, ask: bool
) -> None:
    qemu = hypervisor(tmp_path, threads, shutdown_timeout=0.5)
    await qemu.start(SERVER, machine(empty))
    with process(tmp_path) as pid:
        os.kill(pid, signal.SIGSTOP)
    await qemu.power_off(SERVER, ask=ask)
    assert not Path(f"/proc/{pid}").exists()
    await qemu.start(SERVER, machine(empty))
    assert list(await qemu.running()) == [SERVER]
    await qemu.stop(SERVER)


#: Actions of a guest that has broken into QEMU and wants to outlive its server.
ESCAPED = f"""\
#!{PYTHON} -IS
import os, socket, time
qmp, _ = socket.socket(fileno={MONITOR}).accept()
qmp.sendall(b'{{"QMP": {{}}}}\\n')
while qmp.recv(4096):
    qmp.sendall(b'{{"return": {{}}}}\\n')
os.closerange(0, 64)
time.sleep(600)
"""


@ensureDeferred
async def test_a_server_that_lets_go_of_its_locks_is_ended(
    tmp_path: Path, threads: Threads, empty: ConnectionInfo
) -> None:
    """A guest that has broken into QEMU neither outlives the server nor keeps the disks.

    Break: `plugins/bootvol_plugins/qemu/folders.py`: `return self._locker() if noted is None else
    noted.pid` -> `return self._locker()`
    """
    with TemporaryDirectory(prefix="bootvol", dir="/tmp") as public:
        binary = Path(public, "qemu")
        binary.write_text(ESCAPED)
        for path in (Path(public), binary):
            path.chmod(0o755)
        qemu = hypervisor(tmp_path, threads, binary=str(binary))
        await qemu.start(SERVER, machine(empty))
        folder = Folder(tmp_path / "servers" / SERVER)
        try:
            pid = folder.process()
            while folder._locker() is not None or not folder.take():
                await pause(0.05)
        finally:
            folder.close()
        assert Path(f"/proc/{pid}").exists()
        assert list(await qemu.running()) == [SERVER]
        await qemu.stop(SERVER)
        assert not Path(f"/proc/{pid}").exists()


@ensureDeferred
async def test_nobody_else_is_taken_for_a_server(qemu: QemuHypervisor, tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "600"]) as bystander:
        folder = tmp_path / "servers" / SERVER
        folder.mkdir()
        (folder / "pid").write_text(f"{bystander.pid}\n")
        (tmp_path / "servers" / "a-file").touch()
        assert not await qemu.running()
        await qemu.stop(SERVER)
        assert not folder.exists()
        assert bystander.poll() is None
        (tmp_path / "servers" / "a-file").unlink()
        bystander.kill()


@pytest.mark.parametrize(
    ("binary", "reason"),
    [("no-such-qemu", "program no-such-qemu is not installed"), ("false", "ended without a word")],
)
@ensureDeferred
async def test_a_wrong_program(
    tmp_path: Path, threads: Threads, empty: ConnectionInfo, binary: str, reason: str
) -> None:
    qemu = hypervisor(tmp_path, threads, binary=binary)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(HypervisorFailed, match=reason):
            await qemu.start(SERVER, machine(empty))
    assert not await qemu.running()
    assert len(os.listdir("/proc/self/fd")) == before
    await qemu.stop(SERVER)


@ensureDeferred
async def test_a_guest_that_writes_for_ever(
    qemu: QemuHypervisor, linux: ConnectionInfo, tmp_path: Path
) -> None:
    """A guest's console has two files of bounded size.

    Break: `plugins/bootvol_plugins/qemu/console.py`: `if os.fstat(new).st_size >= HALF:` -> `if
    not new:`.
    """
    await qemu.start(SERVER, machine(linux, disk_file(tmp_path / "order.raw", guest.CHATTER)))
    old = tmp_path / "servers" / SERVER / "console.old"
    await until(lambda: old.exists() and old.stat().st_size, seconds=LONG_LIMIT)
    assert old.stat().st_size < 700 * 1024
    said = await qemu.console(SERVER, 100 * 1024)
    assert len(said) == 100 * 1024
    assert b"written many times" in said[-200:]
    await qemu.stop(SERVER)


@ensureDeferred
async def test_nothing_is_left_open(qemu: QemuHypervisor, empty: ConnectionInfo) -> None:
    before: int | None = None
    for _ in range(3):
        await qemu.start(SERVER, machine(empty))
        starting = Deferred.fromCoroutine(qemu.start(OTHER, machine(empty)))
        with pytest.raises(HypervisorFailed):
            await starting
        await qemu.running()
        await qemu.stop(SERVER)
        found = len(os.listdir("/proc/self/fd"))
        assert before in (None, found)
        before = found
