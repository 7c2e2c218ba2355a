"""A daemon without free descriptors: no volume fails, and the log reports the shortage."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError

from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread

from bootvol.testing.backends import noise
from tests.images import convert
from tests.processes import Process, process
from tests.waiting import block_until

MIB = 1024 * 1024
CONTENT = noise(4 * MIB)
SHORT = "the daemon is short of open files"
OVER = "the daemon has enough of everything again"


@contextmanager
def short(daemon: Process, spare: int) -> Iterator[None]:
    """Leave a daemon only a few free descriptors, until the end of the block."""
    pid = daemon.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    highest = max(int(each) for each in os.listdir(f"/proc/{pid}/fd"))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + 1 + spare, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


@ensureDeferred
async def test_a_shortage_is_waited_out(tmp_path: Path) -> None:
    await deferToThread(_a_shortage_is_waited_out, tmp_path)


def _a_shortage_is_waited_out(folder: Path) -> None:
    with process(folder, "[quota]\nvolumes = -1\n") as daemon:
        (daemon.images / "raw").write_bytes(CONTENT)
        (daemon.images / "packed").write_bytes(convert(folder, "qcow2", disk=CONTENT))
        # The first volumes open all lasting descriptors.
        assert _made(daemon, [daemon.create("raw"), daemon.create("packed")])
        numbers: list[int] = []
        # Any step may lack a descriptor: opening, sharing, writing, starting a process.
        for spare in (1, 2, 3, 5, 8, 12):
            with short(daemon, spare):
                answers = [_tried(daemon, image) for image in ("raw", "packed")]
                time.sleep(1)
            numbers += [number for number, _ in answers if number]
            assert {refused for _, refused in answers} <= {0, 503}
        assert numbers
        assert _made(daemon, numbers)
        assert SHORT in daemon.log.read_text()
        block_until(daemon.log.read_text, lambda log: log.count(SHORT) == log.count(OVER))
        for number in numbers:
            assert _content(daemon, number) == CONTENT


def _tried(daemon: Process, image: str) -> tuple[int, int]:
    """Create a volume; return the id or 0, and the status of a refusal or 0."""
    try:
        return daemon.create(image), 0
    except HTTPError as error:
        return 0, error.code
    except OSError:
        # The connection itself lacks a descriptor.
        return 0, 0


def _made(daemon: Process, numbers: list[int]) -> bool:
    """Wait until all work is done; return whether all given volumes are available."""
    daemon.until_settled()
    shown = {each["id"]: each["status"] for each in daemon.get("os-volumes")["volumes"]}
    assert {number: shown[number] for number in numbers} == dict.fromkeys(numbers, "available"), (
        daemon.log.read_text()
    )
    return True


def _content(daemon: Process, number: int) -> bytes:
    """Return the first bytes of a volume."""
    found = daemon.get(f"os-volumes/{number}/connection")["connection"]["address"]
    with Path(found).open("rb") as volume:
        return volume.read(len(CONTENT))
