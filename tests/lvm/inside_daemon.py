"""A whole daemon on thick and thin volumes: what clients ask for, restarts, and old blocks."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bootvol.testing.backends import noise
from tests.lvm.groups import DISKS, fill, group, holds, lvm, names
from tests.processes import Process

MIB = 1024 * 1024
GIB = 1024 * MIB
#: With holes.
CONTENT = noise(3 * MIB) + bytes(5 * MIB) + noise(MIB + 100, 1)
MARK = b"what another tenant wrote".ljust(512, b".")
CONFIG = """
[[backends]]
name = "thick"
plugin = "lvm"
group = "thick"

[[backends]]
name = "thin"
plugin = "lvm"
group = "thin"
pool = "pool"
"""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A daemon with both backends, each with a type of its name; the thick one is full of marks."""
    with group("thick", DISKS[0]), group("thin", DISKS[1], pool="1g"):
        lvm("lvcreate", "-y", "-l", "100%FREE", "-n", "others", "thick")
        fill("/dev/thick/others", MARK)
        lvm("lvremove", "-y", "thick/others")
        daemon = Process(tmp_path_factory.mktemp("daemon"), CONFIG)
        try:
            (daemon.images / "disk").write_bytes(CONTENT)
            for name in "thick", "thin":
                wanted = {"name": name, "extra_specs": {"volume_backend_name": name}}
                daemon.call("POST", "os-volume-types", {"volume_type": wanted})
            yield daemon
        finally:
            daemon.stop()


def create(daemon: Process, **wanted: Any) -> int:
    """Create a volume; return its id."""
    number: int = daemon.call("POST", "os-volumes", {"volume": wanted})["volume"]["id"]
    return number


def path_of(daemon: Process, volume: int) -> Path:
    """Return the path of a volume's device."""
    found = daemon.get(f"os-volumes/{volume}/connection")["connection"]
    assert found["kind"] == "block"
    return Path(found["address"])


def check(path: Path, content: bytes) -> None:
    """See that a volume of one GiB holds an image, and zeros after that."""
    with path.open("rb") as opened:
        assert opened.read(len(content)) == content
        zeros, left = bytes(4 * MIB), GIB - len(content)
        while left:
            piece = opened.read(min(left, len(zeros)))
            assert piece == zeros[: len(piece)], "what lay there before"
            left -= len(piece)
        assert opened.read(1) == b""


def settle(daemon: Process) -> None:
    """Wait until nothing is on its way; everything must have come well."""
    assert set(daemon.until_settled()) <= {"available", "in-use"}, daemon.log.read_text()[-5000:]


@pytest.mark.parametrize("name", ["thick", "thin"])
def test_what_clients_ask_for(daemon: Process, name: str) -> None:
    volume = create(daemon, size=1, imageRef="disk", volume_type=name)
    blank = create(daemon, size=1, volume_type=name)
    settle(daemon)
    taken = daemon.call("POST", "os-snapshots", {"snapshot": {"volume_id": volume}})["snapshot"]
    settle(daemon)
    clone = create(daemon, snapshot_id=taken["id"])
    settle(daemon)
    check(path_of(daemon, volume), CONTENT)
    check(path_of(daemon, clone), CONTENT)
    check(path_of(daemon, blank), b"")
    with path_of(daemon, clone).open("r+b") as guest:
        guest.write(MARK)
    check(path_of(daemon, volume), CONTENT)
    attachments = "servers/7/os-volume_attachments"
    daemon.call("POST", attachments, {"volumeAttachment": {"volumeId": volume}})
    settle(daemon)
    assert daemon.get(f"os-volumes/{volume}")["volume"]["status"] == "in-use"
    daemon.call("DELETE", f"{attachments}/{volume}")
    settle(daemon)
    # The volume goes before its snapshot.
    daemon.delete(volume)
    settle(daemon)
    check(path_of(daemon, clone), MARK + CONTENT[len(MARK) :])
    for number in clone, blank:
        daemon.delete(number)
    daemon.call("DELETE", f"os-snapshots/{taken['id']}")
    settle(daemon)
    assert [each for each in names(name) if "golden" not in each] == []


@pytest.mark.parametrize("name", ["thick", "thin"])
def test_killed_and_stopped_among_the_work(daemon: Process, name: str) -> None:
    kept = create(daemon, size=1, imageRef="disk", volume_type=name)
    settle(daemon)
    gone = create(daemon, size=1, imageRef="disk", volume_type=name)
    daemon.delete(kept)
    daemon.stop(signal.SIGKILL if name == "thick" else signal.SIGTERM)
    daemon.start()
    settle(daemon)
    check(path_of(daemon, gone), CONTENT)
    daemon.delete(gone)
    settle(daemon)
    assert [each for each in names(name) if "golden" not in each] == []
    assert "Traceback" not in daemon.log.read_text()


def test_no_room(daemon: Process) -> None:
    for name, size in (("thick", 100),):
        volume = create(daemon, size=size, volume_type=name)
        assert daemon.until_settled() == ["error"]
        error = daemon.get(f"os-volumes/{volume}/error")["error"]
        assert error["code"] == "no-space"
        daemon.delete(volume)
        daemon.until_settled()


def test_old_blocks_are_nowhere(daemon: Process) -> None:
    """After all that, not even where volumes were deleted: but where none ever was."""
    first = create(daemon, size=1, volume_type="thick")
    settle(daemon)
    assert not holds(path_of(daemon, first), MARK)
    daemon.delete(first)
    settle(daemon)
    lvm("lvcreate", "-y", "--zero", "n", "--wipesignatures", "n", "-L", "1g", "-n", "o", "thick")
    assert not holds("/dev/thick/o", MARK)
    lvm("lvremove", "-y", "thick/o")
    lvm("lvcreate", "-y", "-l", "100%FREE", "-n", "others", "thick")
    assert holds("/dev/thick/others", MARK), "the test would see them"
