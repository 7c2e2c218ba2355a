"""What QEMU is told, and what is kept of a console."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from bootvol.errors import ConfigurationError, HypervisorFailed
from bootvol.interfaces import PluginContext
from bootvol.model import Connection, Disk
from bootvol.threads import Threads
from bootvol_plugins.qemu import PLUGIN, console, disks
from bootvol_plugins.qemu.machine import DISKS, Process, command, keeper
from bootvol_plugins.qemu.options import QemuOptions
from tests.daemons import reactor
from tests.machines import machine, options

FILE = Connection("file", "/volumes/a.raw")


def test_the_directory_is_made_when_the_daemon_starts(tmp_path: Path, threads: Threads) -> None:
    context = PluginContext(reactor, threads, "local")
    directory = tmp_path / "some" / "servers"
    PLUGIN.factory(QemuOptions(directory=directory), context)
    assert directory.stat().st_mode & 0o777 == 0o700
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="cannot be used: Not a directory"):
        PLUGIN.factory(QemuOptions(directory=tmp_path / "file" / "servers"), context)


def test_a_directory_that_others_may_write_to(tmp_path: Path, threads: Threads) -> None:
    directory = tmp_path / "servers"
    directory.mkdir()
    directory.chmod(0o702)
    with pytest.raises(ConfigurationError, match=r"hypervisor\.directory: .*chmod go-w"):
        PLUGIN.factory(QemuOptions(directory=directory), PluginContext(reactor, threads, "local"))


def test_disks_that_are_opened_here_are_numbered(tmp_path: Path) -> None:
    """Break: `plugins/bootvol_plugins/qemu/disks.py`: `return {"driver": "raw", "node-name"` ->
    `return {"driver": "qcow2", "node-name"`
    """
    served = Connection("nbd", "nbd+unix:///a?socket=/run/nbd")
    words = command(
        options(tmp_path), "/usr/bin/qemu", "server-1", machine(FILE, served, FILE, FILE)
    )
    given = [word for word in words if "opaque=" in word]
    assert [word.split(",")[:2] for word in given] == [
        [f"fd={DISKS + number}", f"set={DISKS + number}"] for number in range(3)
    ]
    blocks = [json.loads(words[n + 1]) for n, word in enumerate(words) if word == "-blockdev"]
    assert [block["file"].get("filename") for block in blocks] == [
        f"/dev/fdset/{DISKS}",
        None,
        f"/dev/fdset/{DISKS + 1}",
        f"/dev/fdset/{DISKS + 2}",
    ]
    assert all(block["driver"] == "raw" for block in blocks)
    devices = [json.loads(words[n + 1]) for n, word in enumerate(words) if word == "-device"]
    assert [device.get("bootindex") for device in devices] == [0, None, None, None]


@pytest.mark.parametrize(
    ("address", "server", "export"),
    [
        ("nbd+unix:///a%20b?socket=/run/x%2Cy", {"type": "unix", "path": "/run/x,y"}, "a b"),
        ("nbd+unix:///?socket=/run/x", {"type": "unix", "path": "/run/x"}, ""),
        ("nbds://host/a", {"type": "inet", "host": "host", "port": "10809"}, "a"),
        ("nbds://[fd00::1]:99/a", {"type": "inet", "host": "fd00::1", "port": "99"}, "a"),
    ],
)
def test_disks_that_are_served(address: str, server: object, export: str, tmp_path: Path) -> None:
    disk = Disk("vdb", Connection("nbd", address))
    file = disks.block(disk, None, tmp_path)["file"]
    assert (file["server"], file["export"]) == (server, export)
    secret = disks.credentials(disk, tmp_path)
    assert file.get("tls-creds") == (secret["id"] if secret else None)
    assert (secret is None) == address.startswith("nbd+unix")


def test_no_disk_is_fetched_in_the_clear(tmp_path: Path) -> None:
    """A disk on another machine is fetched by TLS or not at all.

    Break: `plugins/bootvol_plugins/qemu/disks.py`: `if tls is None:` -> `if tls is False:`.
    """
    with pytest.raises(HypervisorFailed, match="names no credentials"):
        disks.block(Disk("vdb", Connection("nbd", "nbds://host/a")), None, None)
    with pytest.raises(HypervisorFailed, match="no disks by nbd"):
        disks.block(Disk("vdb", Connection("nbd", "nbd://host/a")), None, tmp_path)


def test_a_node_stands_for_one_disk_in_one_place() -> None:
    names = {
        disks.node_name(Disk(device, Connection(kind, address)))
        for device in ("vdb", "vdc")
        for kind in ("file", "block")
        for address in ("/a", "/b")
    }
    assert len(names) == 8
    assert max(map(len, names)) <= 31


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        (b"", "QEMU ended without a word"),
        (b"qemu: -accel kvm: failed to initialize kvm\n", "-accel kvm: failed to initialize kvm"),
        (
            b"qemu: warning: TCG does not do this\n"
            b'qemu: -blockdev {"a": {"b": "c"}}: Failed to get "write" lock.\nIs another using it?',
            'Failed to get "write" lock',
        ),
        (b"qemu: \xff" + b"x" * 100_000, "\ufffd" + "x" * (64 * 1024 - 7)),
    ],
)
def test_what_is_said_of_one_that_does_not_start(said: bytes, complaint: str) -> None:
    process = Process()
    process.errReceived(said[:10])
    process.errReceived(said[10:])
    assert process.complaint == complaint


def test_of_a_console_the_end_is_kept(tmp_path: Path) -> None:
    written = b"".join(b"line %d\r\n" % number for number in range(300_000))
    subprocess.run(keeper(), input=written, cwd=tmp_path, check=True, timeout=60)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 3 * console.HALF
    folder = os.open(tmp_path, os.O_PATH)
    try:
        for length in (0, 1, 1000, console.HALF):
            assert console.tail(folder, length) == written[len(written) - length :]
        assert written.endswith(console.tail(folder, len(written)))
        # Another start of the server goes on.
        subprocess.run(keeper(), input=b"again", cwd=tmp_path, check=True, timeout=60)
        assert console.tail(folder, 7) == b"\r\nagain"
    finally:
        os.close(folder)


def test_a_guest_does_not_stop_where_its_console_cannot_be_kept(tmp_path: Path) -> None:
    limited = ["prlimit", "--fsize=4096", *keeper()]
    subprocess.run(limited, input=bytes(1024 * 1024), cwd=tmp_path, check=True, timeout=60)
    assert (tmp_path / "console").stat().st_size == 4096


def test_images_of_ceph_are_named_as_their_address_says() -> None:
    address = r"rbd:pool/space/image:id=ann:conf=/a\:b\@c\\d\=e:keyring=/key"
    assert disks.block(Disk("vdb", Connection("rbd", address)), None, None)["file"] == {
        "driver": "rbd",
        "pool": "pool",
        "namespace": "space",
        "image": "image",
        "conf": "/a:b@c\\d=e",
        "user": "ann",
    }
    address = "rbd:pool/image:id=ann:conf=/c"
    assert (
        "namespace" not in disks.block(Disk("vdb", Connection("rbd", address)), None, None)["file"]
    )
    with pytest.raises(HypervisorFailed, match=r"reaches a cluster of Ceph by its ceph\.conf"):
        disks.block(Disk("vdb", Connection("rbd", "rbd:p/i:id=a:mon_host=b")), None, None)
