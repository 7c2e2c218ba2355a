"""Exports: real servers, real clients, and the state after either is killed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet.defer import CancelledError, Deferred, gatherResults

from bootvol.errors import ConfigurationError, ExportFailed
from bootvol.exports.exports import Exports
from bootvol.exports.records import Records
from bootvol.jail import FIRST_USER, Jail
from bootvol.jail.program import Lacking
from bootvol.model import ConnectionInfo
from bootvol.processes import Process
from bootvol.shortage import short_of
from bootvol.tables import ExportsTable
from bootvol.threads import Threads
from tests import disks
from tests.daemons import pause, reactor
from tests.exports import (
    GREETING,
    HOST,
    connect,
    credentials,
    guest,
    holders,
    image,
    machine,
    qemu_io,
    server,
    tls,
    unix,
    waits,
)
from tests.images import qcow2
from tests.jails import ANOTHER, ROOT, attacks
from tests.processes import run
from tests.servers import free_port
from tests.waiting import until

NAME = "volume-0d7c1dc4-51f3-4a3c-8b2b-0f3c1f6f3f0a"
MIB = 1024 * 1024

Make = Callable[[ExportsTable], Exports]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a path short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="bootvol", dir="/tmp") as path:
        # Other users run the programs in this folder.
        os.chmod(path, 0o755)
        yield Path(path)


@pytest.fixture
def make(folder: Path, threads: Threads) -> Iterator[Make]:
    """Return a function that makes exports in the folder. The fixture closes them afterwards."""
    made: list[Exports] = []

    def one(options: ExportsTable) -> Exports:
        made.append(Exports(options, threads, reactor, Jail()))
        return made[-1]

    yield one

    async def close() -> None:
        for exports in made:
            for name in await exports.names():
                await exports.close(name)

    pytest_twisted.blockon(Deferred.fromCoroutine(close()))


@pytest.fixture
def volume(folder: Path) -> ConnectionInfo:
    """A volume of 8 MiB, full of 1s."""
    path = folder / "v.raw"
    path.write_bytes(b"\1" * 8 * MIB)
    return ConnectionInfo("file", str(path))


def another(volume: ConnectionInfo, name: str) -> ConnectionInfo:
    """Make one more volume in the same folder."""
    path = Path(volume.address).with_name(name)
    path.write_bytes(bytes(MIB))
    return ConnectionInfo("file", str(path))


def left(folder: Path) -> list[str]:
    """Return the content of the folder of exports, and of its folder of sockets."""
    found = [*(folder / "e").iterdir(), *(folder / "e" / "s").iterdir()]
    return sorted(each.name for each in found if each != folder / "e" / "s")


# --- served volumes ------------------------------------------------------------------------------


@ensureDeferred
async def test_by_unix(folder: Path, make: Make, volume: ConnectionInfo) -> None:
    exports = make(unix(folder))
    served = await exports.open(NAME, volume)
    path = folder / "e" / "s" / NAME
    assert served == ConnectionInfo("nbd", f"nbd+unix:///{NAME}?socket={path}")
    where = image(served.address)
    before = Path(volume.address).stat().st_blocks
    qemu_io(where, "read -P 1 0 8M", "write -P 7 1M 1M", "flush", "discard 4M 2M")
    file = Path(volume.address)
    assert file.read_bytes()[MIB : 2 * MIB] == b"\7" * MIB
    assert file.stat().st_blocks <= before - 2 * MIB // 512, "its space is given back"
    # Written zeros stay allocated: only a discard gives space back.
    before = file.stat().st_blocks
    qemu_io(where, "write -P 0 0 1M")
    assert file.stat().st_blocks == before
    wrong = image(served.address.replace(NAME, "volume-other", 1))
    qemu_io(wrong, "read 0 4k", good=False)
    assert (folder / "e").stat().st_mode & 0o777 == 0o700


@ensureDeferred
async def test_a_server_that_is_not_known_keeps_no_volume(
    folder: Path, make: Make, volume: ConnectionInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    exports, of = make(unix(folder)), Process.of

    def failing(_pid: int) -> Process | None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Process, "of", failing)
    with pytest.raises(ExportFailed) as raised:
        await exports.open(NAME, volume)
    assert short_of(raised.value)
    monkeypatch.setattr(Process, "of", of)
    served = await exports.open(NAME, volume)
    qemu_io(image(served.address), "read -P 1 0 8M")


@ensureDeferred
async def test_a_server_without_threads_is_no_failure_of_the_volume(
    folder: Path, make: Make, volume: ConnectionInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = folder / "qemu-nbd"
    said = "qemu: qemu_thread_create: Resource temporarily unavailable"
    program.write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 134\n")
    program.chmod(0o755)
    exports = make(unix(folder))
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    with pytest.raises(ExportFailed) as raised:
        await exports.open(NAME, volume)
    assert short_of(raised.value)


@ensureDeferred
async def test_what_a_guest_flushes_is_flushed(make: Make, folder: Path) -> None:
    with disks.block_device(folder / "disk", 16 * MIB) as device:
        exports = make(unix(folder))
        served = await exports.open(NAME, ConnectionInfo("block", str(device.path)))
        flushes = Path(f"/sys/block/{device.path.name}/stat")
        before = int(flushes.read_text().split()[15])
        qemu_io(image(served.address), "write -P 5 0 1M", "flush")
        assert int(flushes.read_text().split()[15]) > before
        await exports.close(NAME)
        assert device.path.read_bytes()[:MIB] == b"\5" * MIB


@ensureDeferred
async def test_by_tls(folder: Path, make: Make, volume: ConnectionInfo) -> None:
    """A client without a certificate of the authority reads nothing from a disk.

    Break: `src/bootvol/exports/listeners.py`: `verify-peer=yes,` -> `verify-peer=no,`.
    """
    port = free_port()
    exports = make(tls(folder, [port, port]))
    served = await exports.open(NAME, volume)
    assert served == ConnectionInfo("nbd", f"nbds://{HOST}:{port}/{NAME}")
    qemu_io(image(served.address, folder / "pki"), "read -P 1 0 4k", "write -P 7 0 1M", "flush")
    assert Path(volume.address).read_bytes()[:MIB] == b"\7" * MIB

    qemu_io(image(served.address), "read 0 4k", good=False)
    (folder / "pki" / "client-cert.pem").unlink()
    qemu_io(image(served.address, folder / "pki"), "read 0 4k", good=False)
    credentials(folder / "other")
    shutil.copy(folder / "pki" / "ca-cert.pem", folder / "other" / "ca-cert.pem")
    refused = qemu_io(image(served.address, folder / "other"), "read 0 4k", good=False)
    assert "certificate" in refused.stderr or "Failed" in refused.stderr


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
@pytest.mark.parametrize("version", ["TLSv1", "TLSv1_1", "TLSv1_2", "TLSv1_3"])
@ensureDeferred
async def test_old_tls_is_refused(
    folder: Path, make: Make, volume: ConnectionInfo, version: str
) -> None:
    """An export is served by TLS 1.2 and 1.3 only.

    Break: `src/bootvol/exports/listeners.py`: `f"priority={_TLS_VERSIONS},dir=` -> `f"dir=`.
    """
    port = free_port()
    served = await make(tls(folder, [port, port])).open(NAME, volume)
    pki = folder / "pki"
    context = ssl.create_default_context(cafile=pki / "ca-cert.pem")
    context.load_cert_chain(pki / "client-cert.pem", pki / "client-key.pem")
    # The system's OpenSSL refuses old versions, too, above this level.
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    context.maximum_version = context.minimum_version = ssl.TLSVersion[version]
    with connect(served.address) as client:
        client.recv(18)
        # NBD protocol, "Option types": NBD_OPT_STARTTLS.
        client.sendall(struct.pack(">I8sII", 1, b"IHAVEOPT", 5, 0))
        client.recv(20)
        if version in {"TLSv1", "TLSv1_1"}:
            with pytest.raises(ssl.SSLError):
                context.wrap_socket(client, server_hostname=HOST)
        else:
            with context.wrap_socket(client, server_hostname=HOST) as encrypted:
                assert encrypted.version() == version.replace("_", ".")


@ensureDeferred
async def test_the_system_asks_after_clients_that_say_nothing(
    folder: Path, make: Make, volume: ConnectionInfo
) -> None:
    port = free_port()
    served = await make(tls(folder, [port, port])).open(NAME, volume)
    with connect(served.address) as client:
        assert client.recv(18)[:16] == GREETING
        (line,) = (
            each.split()
            for each in Path("/proc/net/tcp").read_text().splitlines()
            # State 1 means an established connection; the remote port is in the third column.
            if each.split()[1].endswith(f":{port:04X}") and each.split()[3] == "01"
        )
        assert line[5].startswith("02:"), "a keepalive timer"


@ensureDeferred
async def test_one_client_at_a_time(folder: Path, make: Make, volume: ConnectionInfo) -> None:
    served = await make(unix(folder)).open(NAME, volume)
    with connect(served.address) as first, connect(served.address) as second:
        assert first.recv(18)[:16] == GREETING
        assert waits(second)
        first.close()
        assert second.recv(18)[:16] == GREETING


@ensureDeferred
async def test_a_server_has_no_rights(folder: Path, make: Make, volume: ConnectionInfo) -> None:
    """Under root, a server has a user of its own; the volume belongs to that user no longer than
    needed.

    Break: `src/bootvol/jail/program/__init__.py`: `os.setresuid(uid, uid, uid)` ->
    `os.setresuid(1, 1, 1)`
    Break: `src/bootvol/exports/exports.py`: `os.fchown(source.descriptor, record.owner, -1)` ->
    `pass`
    """
    await make(unix(folder)).open(NAME, volume)
    proc = Path(f"/proc/{server(folder, NAME).pid}")
    status = dict(line.split(":\t", 1) for line in (proc / "status").read_text().splitlines())
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    owner = Path(volume.address).stat().st_uid
    users = {int(each) for each in status["Uid"].split()}
    assert users == {FIRST_USER + int(proc.name) if os.geteuid() == 0 else os.geteuid()}
    assert owner == os.geteuid(), "the volume was given back"
    opened = {os.readlink(each) for each in (proc / "fd").iterdir()}
    kinds = ("pipe:", "socket:", "anon_inode:")
    assert {each for each in opened if not each.startswith(kinds)} == {volume.address}
    assert os.getsid(int(proc.name)) == int(proc.name) != os.getsid(0)


@pytest.mark.parametrize("user", [ROOT, ANOTHER])
def test_nothing_but_the_volume_is_reached_from_inside(user: int) -> None:
    """The daemon's files, other volumes, other processes and the network are out of reach, also
    under another user.

    Break: `src/bootvol/exports/processes.py`: `writes=[FILE],` -> `writes=[FILE, Path("/")],`
    Break: `src/bootvol/jail/program/__init__.py`: `restrict_calls(families, aio="aio" in said)` ->
    `pass`
    Break: `src/bootvol/exports/processes.py`: `grows=room(found.st_size)` -> `grows=2**30`
    Break: `src/bootvol/exports/processes.py`: `**memory_limits(_MEMORY)` -> `**{}`
    Break: `src/bootvol/jail/program/calls.py`: `calls.refuse("fallocate", reserving,
    error=errno.EOPNOTSUPP)` -> `pass`
    Break: `src/bootvol/jail/program/calls.py`: `*_OWNING_SOCKETS, *_RESERVING` ->
    `*_OWNING_SOCKETS`
    Break: `src/bootvol/jail/program/calls.py`: `calls.refuse("ioctl", (1, _MASKED_EQ, _KIND,
    _BTRFS))` -> `pass`
    """
    # A server that goes around the system's cache uses native AIO, whose requests all share.
    done = [each for each in attacks("export", user) if each != "takes_what_all_processes_share"]
    assert done == ["writes_what_it_opens_again"]


@pytest.mark.parametrize(
    ("direct", "in_use", "told"),
    [
        (True, 0, ["--cache=none", "--aio=native"]),
        (True, 1, ["--cache=none", "--aio=threads"]),
        (False, 0, ["--cache=writeback", "--aio=threads"]),
    ],
)
@ensureDeferred
async def test_how_the_volume_is_opened(
    folder: Path,
    make: Make,
    volume: ConnectionInfo,
    monkeypatch: pytest.MonkeyPatch,
    direct: bool,
    in_use: int,
    told: list[str],
) -> None:
    (folder / "aio-nr").write_text(f"{in_use}\n")
    (folder / "aio-max-nr").write_text("1024\n")
    monkeypatch.setattr("bootvol.exports.exports._AIO", folder)
    monkeypatch.setattr("bootvol.exports.exports.can_go_around_cache", lambda _: direct)
    served = await make(unix(folder)).open(NAME, volume)
    command = Path(f"/proc/{server(folder, NAME).pid}/cmdline").read_text().split("\0")
    assert [each for each in command if each.startswith(("--cache", "--aio"))] == told
    qemu_io(image(served.address), "write -P 7 0 1M", "flush", "read -P 7 0 1M")


@ensureDeferred
async def test_many_at_once(folder: Path, make: Make, volume: ConnectionInfo) -> None:
    first = free_port()
    exports = make(tls(folder, [first, min(first + 400, 65535)]))
    names = [f"volume-{n}" for n in range(8)]
    served = await gatherResults(
        [Deferred.fromCoroutine(exports.open(each, another(volume, each))) for each in names]
    )
    assert len({each.address.rpartition("/")[0] for each in served}) == 8
    assert set(await exports.names()) == set(names)
    await gatherResults([Deferred.fromCoroutine(exports.close(each)) for each in names])
    assert left(folder) == []


@ensureDeferred
async def test_what_is_served_takes_nothing_of_the_daemons(
    folder: Path, make: Make, volume: ConnectionInfo
) -> None:
    exports = make(unix(folder))
    before = len(os.listdir("/proc/self/fd"))
    for name in "volume-1", "volume-2":
        await exports.open(name, another(volume, name))
    assert len(os.listdir("/proc/self/fd")) == before
    for name in "volume-1", "volume-2":
        await exports.close(name)
    assert len(os.listdir("/proc/self/fd")) == before


# --- cutting off clients -------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["unix", "tls"])
@ensureDeferred
async def test_closing_cuts_off_the_guest(
    folder: Path, make: Make, volume: ConnectionInfo, by: str
) -> None:
    """A closed export has no process, no socket and no client left.

    Break: `src/bootvol/exports/exports.py`: `await record.process.end(self._reactor,
    self._patience)` -> `pass`.
    """
    port = free_port()
    options = unix(folder) if by == "unix" else tls(folder, [port, port])
    exports = make(options)
    served = await exports.open(NAME, volume)
    process = server(folder, NAME)
    assert holders(Path(volume.address))
    with guest(image(served.address, folder / "pki")) as client, connect(served.address):
        await exports.close(NAME)
        assert holders(Path(volume.address)) == []
        assert not process.runs()
        assert left(folder) == []
        assert await exports.names() == set()
        assert "failed" in client.ask("read 0 4k")
        with pytest.raises(OSError, match=r"refused|No such file"):
            connect(served.address)
    await exports.close(NAME)
    await exports.close("volume-that-never-was")


@ensureDeferred
async def test_what_a_guest_wrote_is_never_probed(
    folder: Path, make: Make, volume: ConnectionInfo
) -> None:
    """A volume with the header of a qcow2 image is served byte for byte.

    Break: `src/bootvol/exports/exports.py`: `"--format=raw",` -> `"--persistent",`
    """
    written = qcow2(folder)
    with open(volume.address, "r+b") as file:
        file.write(written)
    served = await make(unix(folder)).open(NAME, volume)
    copy = folder / "copy"
    fetched = run(["qemu-img", "convert", "-f", "raw", "-O", "raw", served.address, copy])
    assert fetched.returncode == 0, fetched
    assert copy.read_bytes()[: len(written)] == written
    assert copy.stat().st_size == 8 * MIB


@ensureDeferred
async def test_closing_what_is_dying(folder: Path, make: Make, volume: ConnectionInfo) -> None:
    # The first thread is a zombie then, while other threads have the volume open.
    exports = make(unix(folder))
    for _ in range(10):
        await exports.open(NAME, volume)
        stat = Path(f"/proc/{server(folder, NAME).pid}/stat")
        os.kill(int(stat.parent.name), signal.SIGKILL)
        while ") Z " not in stat.read_text():
            pass
        await exports.close(NAME)
        # Every server holds a lock on the volume; now nothing does.
        with open(volume.address, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@ensureDeferred
async def test_what_is_no_export_stays(folder: Path, make: Make, volume: ConnectionInfo) -> None:
    """An operator may keep volumes, or the database, in the same folder."""
    exports = make(unix(folder))
    await exports.open(NAME, volume)
    others = sorted([f"{NAME}.raw", "bootvol.sqlite", "daemon.lock", ".hidden"])
    for each in others:
        (folder / "e" / each).touch()
    assert await exports.names() == {NAME}
    await exports.close(NAME)
    assert left(folder) == others


# --- repeated calls ------------------------------------------------------------------------------


@ensureDeferred
async def test_another_daemon_finds_what_is_served(
    folder: Path, make: Make, volume: ConnectionInfo
) -> None:
    served = await make(unix(folder)).open(NAME, volume)
    process = server(folder, NAME)
    with guest(image(served.address)) as client:
        exports = make(unix(folder))
        # More calls than connections fit into the socket's backlog.
        for _ in range(20):
            assert await exports.open(NAME, volume) == served
        assert server(folder, NAME) == process
        assert await exports.names() == {NAME}
        assert "ops" in client.ask("read 0 4k")
        await exports.close(NAME)
        assert not process.runs()


_DAEMON = """
import os, signal, sys
from pathlib import Path
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from bootvol.exports import processes
from bootvol.exports.exports import Exports
from bootvol.jail import Jail
from bootvol.model import ConnectionInfo
from bootvol.tables import ExportsTable as Table
from bootvol.threads import Threads

folder, name, file, when = sys.argv[1:]

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

async def main():
    threads = Threads(reactor, "test", 2)
    threads.start()
    if when == "starting":
        processes.NbdServer.let_go_on = die
    exports = Exports(Table(by="unix", directory=Path(folder) / "e"), threads, reactor, Jail())
    await exports.open(name, ConnectionInfo("file", file))
    sys.stdin.read()
    die()

react(lambda _: Deferred.fromCoroutine(main()))
"""


def daemon(folder: Path, volume: ConnectionInfo, when: str) -> subprocess.Popen[bytes]:
    """Start a process that exports the volume, and is killed.

    :param when: ``starting`` or, once the standard input ends, ``served``.
    """
    command = [sys.executable, "-c", _DAEMON, str(folder), NAME, volume.address, when]
    return subprocess.Popen(command, stdin=subprocess.PIPE)


@ensureDeferred
async def test_a_guest_does_not_notice_that_the_daemon_is_killed(
    folder: Path, make: Make, volume: ConnectionInfo
) -> None:
    killed = daemon(folder, volume, "served")
    path = folder / "e" / f"{NAME}.json"
    await until(lambda: path.exists() and json.loads(path.read_text())["ready"])
    process = server(folder, NAME)
    exports = make(unix(folder))
    served = await exports.open(NAME, volume)
    with guest(image(served.address)) as client:
        killed.communicate()
        assert killed.returncode == -signal.SIGKILL
        assert "ops" in client.ask("read 0 4k")
        assert await exports.open(NAME, volume) == served
        assert server(folder, NAME) == process
    # The server complains about such clients: many lines, without a reader.
    for _ in range(1000):
        with connect(served.address) as client_of_no_use:
            client_of_no_use.recv(18)
            client_of_no_use.sendall(b"\xff" * 64)
    qemu_io(image(served.address), "read -P 1 0 4k")
    assert process.runs()
    await exports.close(NAME)
    assert not process.runs()


@ensureDeferred
async def test_a_daemon_that_is_killed_while_a_server_starts(
    folder: Path, make: Make, volume: ConnectionInfo
) -> None:
    killed = daemon(folder, volume, "starting")
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    exports = make(unix(folder))
    assert await exports.names() == {NAME}
    while server(folder, NAME).runs():
        await pause(0.05)
    served = await exports.open(NAME, volume)
    qemu_io(image(served.address), "read -P 1 0 4k")


@pytest.mark.parametrize("by", ["unix", "tls"])
@ensureDeferred
async def test_a_server_that_is_killed_is_started_again(
    folder: Path, make: Make, volume: ConnectionInfo, by: str
) -> None:
    first = free_port()
    options = unix(folder) if by == "unix" else tls(folder, [first, first + 1])
    exports = make(options)
    if by == "tls":
        # The other volume takes the first port.
        await exports.open("volume-1", another(volume, "1.raw"))
    served = await exports.open(NAME, volume)
    process = server(folder, NAME)
    os.kill(process.pid, signal.SIGKILL)
    while process.runs():
        await pause(0.01)
    if by == "tls":
        await exports.close("volume-1")
        # No other volume gets the port meanwhile.
        other = await exports.open("volume-2", another(volume, "2.raw"))
        assert other.address == f"nbds://{HOST}:{first}/volume-2"
    assert await exports.open(NAME, volume) == served
    assert server(folder, NAME) != process
    qemu_io(image(served.address, folder / "pki"), "read -P 1 0 4k")


@pytest.mark.parametrize("known_by", ["number", "number and ticks"])
@ensureDeferred
async def test_a_number_that_is_another_process_by_now(
    folder: Path, make: Make, volume: ConnectionInfo, known_by: str
) -> None:
    exports = make(unix(folder))
    served = await exports.open(NAME, volume)
    await server(folder, NAME).end(reactor, 30)
    innocent = subprocess.Popen(["sleep", "600"])
    try:
        now = Process.of(innocent.pid)
        assert now is not None
        # The other process has another time of birth, or another boot of the machine.
        born = "1/2" if known_by == "number" else f"other-boot/{now.born.partition('/')[2]}"
        records = Records(folder / "e")
        record = records.read(NAME)
        assert record is not None
        old = attrs.evolve(record, process=Process(innocent.pid, born))
        records.write(NAME, old)
        assert await exports.open(NAME, volume) == served
        assert server(folder, NAME).pid != innocent.pid
        qemu_io(image(served.address), "read -P 1 0 4k")
        await exports.close(NAME)
        records.write(NAME, old)
        await exports.close(NAME)
        assert left(folder) == []
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()


@ensureDeferred
async def test_another_volume_in_the_place_of_the_first(
    folder: Path, make: Make, volume: ConnectionInfo
) -> None:
    exports = make(unix(folder))
    served = await exports.open(NAME, volume)
    process = server(folder, NAME)
    file = Path(volume.address)
    file.rename(folder / "old.raw")
    file.write_bytes(b"\2" * MIB)
    assert await exports.open(NAME, volume) == served
    assert not process.runs()
    qemu_io(image(served.address), "read -P 2 0 4k")
    assert holders(folder / "old.raw") == []


@ensureDeferred
async def test_a_socket_that_was_taken_away(
    folder: Path, make: Make, volume: ConnectionInfo
) -> None:
    exports = make(unix(folder))
    served = await exports.open(NAME, volume)
    (folder / "e" / "s" / NAME).unlink()
    assert await exports.open(NAME, volume) == served
    qemu_io(image(served.address), "read -P 1 0 4k")


# --- impossible requests -------------------------------------------------------------------------


@ensureDeferred
async def test_a_volume_is_exported_once(folder: Path, make: Make, volume: ConnectionInfo) -> None:
    exports = make(unix(folder))
    served = await exports.open(NAME, volume)
    with pytest.raises(ExportFailed, match="already exported"):
        await exports.open("volume-2", volume)
    assert await exports.names() == {NAME}
    with (
        pytest.raises(AssertionError, match=r'Failed to get shared "write" lock'),
        machine(volume.address),
    ):
        pass
    qemu_io(image(served.address), "read -P 1 0 4k")


@ensureDeferred
async def test_a_volume_that_a_machine_has_open(
    folder: Path, make: Make, volume: ConnectionInfo
) -> None:
    exports = make(unix(folder))
    with machine(volume.address):
        with pytest.raises(ExportFailed) as caught:
            await exports.open(NAME, volume)
        assert caught.value.message == (
            'The volume cannot be exported: Failed to get "write" lock.'
        )
        assert left(folder) == []
    await exports.open(NAME, volume)


@pytest.mark.parametrize(
    ("kind", "path", "told"),
    [
        ("file", "gone.raw", "The volume cannot be exported: No such file or directory."),
        ("file", ".", "The volume's path leads to something else."),
        ("block", "v.raw", "The volume's path leads to something else."),
        ("nbd", "v.raw", "A volume of kind nbd cannot be exported."),
    ],
)
@ensureDeferred
async def test_no_such_volume(
    folder: Path, make: Make, volume: ConnectionInfo, kind: str, path: str, told: str
) -> None:
    with pytest.raises(ExportFailed) as caught:
        await make(unix(folder)).open(NAME, ConnectionInfo(kind, str(folder / path)))
    assert caught.value.message == told
    assert left(folder) == []


@ensureDeferred
async def test_a_volume_that_vanishes_while_its_server_is_down(
    folder: Path, make: Make, volume: ConnectionInfo
) -> None:
    exports = make(unix(folder))
    await exports.open(NAME, volume)
    await server(folder, NAME).end(reactor, 30)
    Path(volume.address).unlink()
    with pytest.raises(ExportFailed):
        await exports.open(NAME, volume)
    assert await exports.names() == {NAME}
    await exports.close(NAME)
    assert left(folder) == []


@ensureDeferred
async def test_a_record_that_is_damaged(folder: Path, make: Make, volume: ConnectionInfo) -> None:
    exports = make(unix(folder))
    await exports.open(NAME, volume)
    path = folder / "e" / f"{NAME}.json"
    whole = path.read_text()
    for damaged in "", "{}", '{"process": {}}', "[]", whole.replace('"lies"', '"lie"'):
        path.write_text(damaged)
        for call in exports.open(NAME, volume), exports.close(NAME):
            with pytest.raises(ExportFailed, match="is damaged"):
                await call
        assert await exports.names() == {NAME}
    # Only this volume is concerned.
    await exports.open("volume-2", another(volume, "2.raw"))
    await exports.close("volume-2")
    path.write_text(whole)


@ensureDeferred
async def test_all_ports_are_in_use(folder: Path, make: Make, volume: ConnectionInfo) -> None:
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        exports = make(tls(folder, [port, port]))
        with pytest.raises(ExportFailed, match=f"All ports from {port} to {port} are in use"):
            await exports.open(NAME, volume)
        assert left(folder) == []
    await exports.open(NAME, volume)
    with pytest.raises(ExportFailed, match="are in use"):
        await exports.open("volume-2", another(volume, "2.raw"))
    await exports.close(NAME)
    await exports.open("volume-2", another(volume, "2.raw"))


@ensureDeferred
async def test_the_port_of_an_export_is_anothers(
    folder: Path, make: Make, volume: ConnectionInfo
) -> None:
    port = free_port()
    exports = make(tls(folder, [port, port + 1]))
    served = await exports.open(NAME, volume)
    await server(folder, NAME).end(reactor, 30)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind((HOST, port))
        other.listen()
        with pytest.raises(ExportFailed, match="Address already in use"):
            await exports.open(NAME, volume)
    assert await exports.open(NAME, volume) == served


@ensureDeferred
async def test_credentials_that_went_bad(folder: Path, make: Make, volume: ConnectionInfo) -> None:
    port = free_port()
    exports = make(tls(folder, [port, port]))
    key = folder / "pki" / "server-key.pem"
    key.unlink()
    with pytest.raises(ExportFailed, match=r"server-key\.pem|private key|credentials"):
        await exports.open(NAME, volume)
    key.write_text("no key")
    with pytest.raises(ExportFailed, match=r"Cannot load certificate 'server-cert\.pem' & key"):
        await exports.open(NAME, volume)
    key.unlink()
    key.mkdir()
    with pytest.raises(ExportFailed, match=r"server-key\.pem: Is a directory"):
        await exports.open(NAME, volume)
    assert left(folder) == []


# --- broken programs -----------------------------------------------------------------------------


def programs(folder: Path, monkeypatch: pytest.MonkeyPatch, qemu_nbd: str | None) -> None:
    """Hide all programs except one and the given qemu-nbd."""
    path = folder / "bin"
    path.mkdir()
    (path / "sleep").symlink_to(str(shutil.which("sleep")))
    if qemu_nbd is not None:
        (path / "qemu-nbd").write_text(qemu_nbd)
        (path / "qemu-nbd").chmod(0o755)
    monkeypatch.setenv("PATH", str(path))


@ensureDeferred
async def test_qemu_nbd_is_missing(
    folder: Path, make: Make, volume: ConnectionInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    exports = make(unix(folder))
    programs(folder, monkeypatch, None)
    with pytest.raises(ExportFailed, match="there is no program qemu-nbd") as caught:
        await exports.open(NAME, volume)
    assert "qemu-nbd" in caught.value.remedy
    assert left(folder) == []


@ensureDeferred
async def test_a_machine_that_cannot_confine_servers(
    folder: Path, make: Make, volume: ConnectionInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def landlock() -> int:
        raise Lacking("the kernel has no Landlock")

    monkeypatch.setattr("bootvol.jail.program.landlock", landlock)
    with pytest.raises(ExportFailed, match="the kernel has no Landlock"):
        await make(unix(folder)).open(NAME, volume)
    assert left(folder) == []


@ensureDeferred
async def test_a_volume_is_given_back_that_a_killed_daemon_left(
    folder: Path, make: Make, volume: ConnectionInfo
) -> None:
    """The server had become the volume's owner, and had not begun to serve.

    Break: `src/bootvol/exports/exports.py`: `if not record.ready:` -> `if False:`
    """
    exports = make(unix(folder))
    await exports.open(NAME, volume)
    path = folder / "e" / f"{NAME}.json"
    path.write_text(path.read_text().replace('"ready": true', '"ready": false'))
    user = Jail().user(server(folder, NAME).pid)
    os.chown(volume.address, user, -1)
    for step in "opened", "closed":
        if step == "opened":
            await exports.open(NAME, volume)
        else:
            path.write_text(path.read_text().replace('"ready": true', '"ready": false'))
            os.chown(volume.address, Jail().user(server(folder, NAME).pid), -1)
            await exports.close(NAME)
        assert Path(volume.address).stat().st_uid == os.geteuid(), step


def hanging(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[Process]]:
    """Replace qemu-nbd by an idle program; return a function that finds its processes."""
    programs(folder, monkeypatch, "#!/bin/sh\nexec sleep 600.25\n")

    def running() -> list[Process]:
        pids = (int(each.name) for each in Path("/proc").glob("[0-9]*") if says(each))
        return [process for process in map(Process.of, pids) if process is not None]

    def says(proc: Path) -> bool:
        with contextlib.suppress(OSError):
            return (proc / "cmdline").read_bytes() == b"sleep\x00600.25\x00"
        return False

    return running


@ensureDeferred
async def test_a_server_that_does_not_begin(
    folder: Path, threads: Threads, volume: ConnectionInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = hanging(folder, monkeypatch)
    exports = Exports(unix(folder), threads, reactor, Jail(), 1)
    with pytest.raises(ExportFailed, match="qemu-nbd does not start"):
        await exports.open(NAME, volume)
    assert running() == []
    assert left(folder) == []


@ensureDeferred
async def test_cancelling(
    folder: Path, make: Make, volume: ConnectionInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = hanging(folder, monkeypatch)
    exports = make(unix(folder))
    opening = Deferred.fromCoroutine(exports.open(NAME, volume))
    while not running():
        await pause(0.05)
    (process,) = running()
    assert process.runs()
    opening.cancel()
    with pytest.raises(CancelledError):
        await opening
    assert not process.runs()
    assert holders(Path(volume.address)) == []
    assert left(folder) == []


@ensureDeferred
async def test_cancelling_at_any_moment(folder: Path, make: Make, volume: ConnectionInfo) -> None:
    exports = make(unix(folder))
    for step in range(12):
        opening: Deferred[Any] = Deferred.fromCoroutine(exports.open(NAME, volume))
        await pause(0.005 * step)
        opening.cancel()
        with contextlib.suppress(CancelledError):
            await opening
        # The server may have come up just before the cancellation.
        await exports.close(NAME)
        assert holders(Path(volume.address)) == []
        assert left(folder) == []
    await exports.open(NAME, volume)


# --- mistakes of the operator --------------------------------------------------------------------


def test_a_path_that_is_too_long(tmp_path: Path, make: Make) -> None:
    long = ExportsTable(by="unix", directory=tmp_path / ("x" * 60))
    with pytest.raises(ConfigurationError, match=r"exports\.directory: .* bytes; at most 40"):
        make(long)


@ensureDeferred
async def test_the_longest_path(folder: Path, threads: Threads, volume: ConnectionInfo) -> None:
    directory = folder / ("x" * (40 - len(str(folder)) - 1))
    longer = directory.with_name(f"{directory.name}x")
    with pytest.raises(ConfigurationError, match="has 41 bytes; at most 40"):
        Exports(ExportsTable(by="unix", directory=longer), threads, reactor, Jail())
    exports = Exports(ExportsTable(by="unix", directory=directory), threads, reactor, Jail())
    name = "v" * 64
    served = await exports.open(name, volume)
    qemu_io(image(served.address), "read -P 1 0 4k")
    await exports.close(name)


def test_a_folder_that_is_open_to_others(folder: Path, make: Make) -> None:
    (folder / "e").mkdir(mode=0o750)
    with pytest.raises(ConfigurationError, match=r"is open to other users\. Run: chmod 700"):
        make(unix(folder))


def test_credentials(folder: Path, make: Make) -> None:
    options = tls(folder, [1, 2])
    key = folder / "pki" / "server-key.pem"
    key.write_bytes((folder / "pki" / "client-key.pem").read_bytes())
    with pytest.raises(ConfigurationError, match=r"exports\.credentials: .*(?i:mismatch)"):
        make(options)
    key.unlink()
    with pytest.raises(ConfigurationError, match=r"exports\.credentials: .*No such file"):
        make(options)


def test_a_host_that_is_not_here(folder: Path, make: Make) -> None:
    options = tls(folder, [1, 2]).model_copy(update={"host": "192.0.2.1"})
    with pytest.raises(ConfigurationError, match=r"exports\.host: .*'192\.0\.2\.1'"):
        make(options)
