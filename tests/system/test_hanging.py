"""Hanging disks: work on other disks continues, and the daemon ends nevertheless.

On a frozen file system (fsfreeze), writers wait; on a file served by a stopped process (FUSE),
readers wait. The system lets nothing end such a wait, not even SIGKILL.
"""

from __future__ import annotations

import fcntl
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread

from bootvol.testing.backends import noise
from tests.disks import disk
from tests.processes import Process
from tests.waiting import LIMIT, block_until

MIB = 1024 * 1024
CONTENT = noise(8 * MIB)
#: From linux/sched.h: a flag of an ending process.
_EXITING = 0x4
SECOND = """
[[backends]]
name = "second"
plugin = "file"
directory = "second"
cache_gib = 0
"""


SLOW = """
[[sources]]
name = "slow"
plugin = "directory"
directory = "slow"
bandwidth_mib = 1.0

[imports]
concurrent = 1
buffer_kib = 256
"""


@contextmanager
def served(file: Path, content: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Serve a file's content by a process (FUSE) until the end of the block; the process may be
    stopped.
    """
    program = shutil.which("qemu-storage-daemon")
    assert program is not None, "This test needs: apt-get install qemu-system-common"
    file.touch()
    serving = subprocess.Popen(
        [
            program,
            *("--blockdev", f"file,node-name=disk,filename={content}"),
            *("--export", f"fuse,id=disk,node-name=disk,mountpoint={file}"),
        ]
    )
    try:
        block_until(lambda: file.stat().st_size == content.stat().st_size)
        yield serving
    finally:
        serving.send_signal(signal.SIGCONT)
        serving.terminate()
        serving.wait(LIMIT)


def until(daemon: Process, number: int, *wanted: str) -> str:
    """Wait until a volume has one of the statuses."""

    def status() -> str:
        try:
            return str(daemon.get(f"os-volumes/{number}")["volume"]["status"])
        except HTTPError as error:
            return "gone" if error.code == 404 else "unknown"

    return block_until(status, lambda found: found in wanted)


def is_ending(daemon: Process) -> bool:
    """Return whether a process has ended, except for threads waiting in the system for a disk."""
    state, *rest = Path(f"/proc/{daemon.process.pid}/stat").read_text().rpartition(")")[2].split()
    return state == "Z" or bool(int(rest[5]) & _EXITING)


def stopped(daemon: Process) -> None:
    """Stop a daemon by SIGTERM, and check that nothing delays the end."""
    daemon.process.send_signal(signal.SIGTERM)
    block_until(lambda: daemon.process.poll() is not None or is_ending(daemon))


def create(daemon: Process, image: str | None, kind: str | None = None) -> int:
    """Create a volume of a type; return the id."""
    wanted: dict[str, Any] = {"size": 1}
    wanted |= {"imageRef": image} if image else {}
    wanted |= {"volume_type": kind} if kind else {}
    number: int = daemon.call("POST", "os-volumes", {"volume": wanted})["volume"]["id"]
    return number


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """The resources of the test."""
    with ExitStack() as stack:
        yield stack


@ensureDeferred
async def test_a_backend_that_hangs(tmp_path: Path, stack: ExitStack) -> None:
    await deferToThread(_a_backend_that_hangs, tmp_path, stack)


def _a_backend_that_hangs(folder: Path, stack: ExitStack) -> None:
    volumes = folder / "volumes"
    mounted = stack.enter_context(disk(volumes, 4096 * MIB, "ext4"))
    daemon = Process(folder, f"{SECOND}[imports]\nconcurrent = 2\n", top="stop_seconds = 3")
    stack.callback(daemon.process.kill)
    for number in range(4):
        (daemon.images / f"{number}").write_bytes(CONTENT[number:] + bytes(number))
    made = daemon.call("POST", "os-volume-types", {"volume_type": {"name": "fast"}})
    specs = {"extra_specs": {"volume_backend_name": "second"}}
    daemon.call("POST", f"os-volume-types/{made['volume_type']['id']}/extra_specs", specs)
    old = [create(daemon, None) for _ in range(5)]
    for number in old:
        until(daemon, number, "available")
    with mounted.frozen():
        # More jobs of each kind than places in their lane.
        hanging = [create(daemon, f"{number}") for number in range(3)]
        for number in old:
            daemon.delete(number)
        fast = [create(daemon, "3", "fast"), create(daemon, None, "fast")]
        assert [until(daemon, number, "available", "error") for number in fast] == ["available"] * 2
        daemon.delete(fast[1])
        until(daemon, fast[1], "gone")
        assert len(daemon.get("images")["images"]) == 4
        stopped(daemon)
        log = daemon.log.read_text()
        assert (
            "the daemon leaves hanging work behind: MakeFromImage of volume 6 on backend local"
            in log
        )
        assert (
            "the daemon leaves hanging work behind: RemoveVolume of volume 1 on backend local"
            in log
        )
        # The next daemon gets all locks and ports, though not even SIGKILL ends the old process
        # now.
        for name in ("daemon.lock", "bootvol.db.lock"):
            with (folder / name).open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", daemon.port), 10)
    daemon.process.wait(LIMIT)
    daemon.start()
    stack.callback(daemon.stop)
    assert [until(daemon, number, "available", "error") for number in hanging] == ["available"] * 3
    assert [until(daemon, number, "gone", "error") for number in old] == ["gone"] * 5


@ensureDeferred
async def test_a_source_that_hangs(tmp_path: Path, stack: ExitStack) -> None:
    await deferToThread(_a_source_that_hangs, tmp_path, stack)


def _a_source_that_hangs(folder: Path, stack: ExitStack) -> None:
    slow = folder / "slow"
    slow.mkdir()
    (folder / "content").write_bytes(CONTENT)
    serving = stack.enter_context(served(slow / "hangs", folder / "content"))
    daemon = Process(folder, SLOW, top="stop_seconds = 3")
    stack.callback(daemon.process.kill)
    (daemon.images / "well").write_bytes(CONTENT)
    hanging = create(daemon, "hangs")
    block_until(lambda: daemon.get(f"hp-bootable-volumes/{hanging}/import")["import"]["bytesDone"])
    serving.send_signal(signal.SIGSTOP)
    # One import may run at once: an import without progress does not count.
    assert until(daemon, create(daemon, "well"), "available", "error") == "available"
    assert until(daemon, hanging, "downloading") == "downloading"
    assert [each["id"] for each in daemon.get("images")["images"]] == ["well"]
    with pytest.raises(HTTPError) as failed:
        create(daemon, "hangs")
    assert failed.value.code == 503
    assert b"Source slow does not answer." in failed.value.read()
    stopped(daemon)
    log = daemon.log.read_text()
    assert log.count("source slow fails") == 1
    assert f"the daemon leaves hanging work behind: MakeFromImage of volume {hanging}" in log
    serving.send_signal(signal.SIGCONT)
    daemon.process.wait(LIMIT)
    daemon.start()
    stack.callback(daemon.stop)
    # QEMU seems to write to its export all the time, so the image never arrives unchanged.
    daemon.delete(hanging)
    assert until(daemon, hanging, "gone", "error") == "gone"
