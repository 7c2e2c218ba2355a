"""The arguments of QEMU, and the console's size."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from bootvol.errors import ConfigurationError, HypervisorFailed
from bootvol.interfaces import PluginContext
from bootvol.jail import Jail
from bootvol.model import ConnectionInfo, Disk
from bootvol.threads import Threads
from bootvol_plugins.qemu import PLUGIN, ceph, console, disks, folders
from bootvol_plugins.qemu.machine import DISKS, Qemu, command, keeper, reached
from bootvol_plugins.qemu.options import QemuOptions
from bootvol_plugins.qemu.reach import Reaching, Told, reach, step
from bootvol_plugins.rbd.bindings import load
from tests.daemons import reactor
from tests.machines import disk_file, machine, options
from tests.waiting import LIMIT, block_until


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


def follow(steps: Reaching) -> tuple[Told, dict[int, int]]:
    """Return QEMU's options for a disk, and the descriptors for QEMU, numbered from 100."""
    given: dict[int, int] = {}
    found = step(steps)
    while not isinstance(found, Told):
        number = 100 + len(given)
        given[number] = found
        found = step(steps, number)
    return found, given


def told(kind: str, address: str, tls: Path | None = None) -> Told:
    """Return QEMU's options for a disk."""
    with ExitStack() as stack:
        return follow(reach(Disk("vdb", ConnectionInfo(kind, address)), tls, stack))[0]


def test_disks_that_are_opened_here_are_numbered(tmp_path: Path) -> None:
    """Break: `plugins/bootvol_plugins/qemu/reach.py`: `return {"driver": "raw", "node-name"` ->
    `return {"driver": "qcow2", "node-name"`
    """
    files = [disk_file(tmp_path / name) for name in "abc"]
    with listening(tmp_path / "nbd") as address, ExitStack() as stack:
        wanted = machine(files[0], ConnectionInfo("nbd", address), *files[1:])
        given = reached(options(tmp_path), wanted, stack)
        words = command(options(tmp_path), "/usr/bin/qemu", "server-1", wanted, given)
        assert [os.fstat(each).st_ino for each in given.files.values()] == [
            os.stat(path).st_ino
            for path in (files[0].address, tmp_path, files[1].address, files[2].address)
        ]
    assert list(given.files) == list(range(DISKS, DISKS + 4))
    added = [word for word in words if "opaque=" in word]
    assert [word.split(",")[:2] for word in added] == [
        [f"fd={DISKS + number}", f"set={DISKS + number}"] for number in (0, 2, 3)
    ]
    blocks = [json.loads(words[n + 1]) for n, word in enumerate(words) if word == "-blockdev"]
    assert [block["file"].get("filename") for block in blocks] == [
        f"/dev/fdset/{DISKS}",
        None,
        f"/dev/fdset/{DISKS + 2}",
        f"/dev/fdset/{DISKS + 3}",
    ]
    assert all(block["driver"] == "raw" for block in blocks)
    devices = [json.loads(words[n + 1]) for n, word in enumerate(words) if word == "-device"]
    assert [device.get("bootindex") for device in devices] == [0, None, None, None]


@contextmanager
def listening(path: Path) -> Iterator[str]:
    """Listen on a socket; return the address of an export at the socket."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        yield f"nbd+unix:///a%20b?socket={quote(str(path))}"


def test_a_disk_at_a_socket(tmp_path: Path) -> None:
    with listening(tmp_path / "x,y z") as address:
        found = told("nbd", address)
        file = found.block["file"]
        assert file["server"] == {"type": "unix", "path": "/proc/self/fd/100/x,y z"}
        assert (file["export"], found.socket, found.secret) == ("a b", tmp_path / "x,y z", None)
    (tmp_path / "file").touch()
    for name, reason in (("file", "is not a socket"), ("none", "cannot be reached: No such file")):
        with pytest.raises(HypervisorFailed, match=reason):
            told("nbd", f"nbd+unix:///a?socket={tmp_path}/{name}")


@pytest.mark.parametrize(
    ("address", "host", "port", "export"),
    [
        ("nbds://host/a", "host", "10809", "a"),
        ("nbds://[fd00::1]:99/a", "fd00::1", "99", "a"),
    ],
)
def test_a_disk_at_a_port(address: str, host: str, port: str, export: str, tmp_path: Path) -> None:
    """QEMU gets the credentials, and a folder with links to the credentials."""
    for name in ("ca-cert.pem", "client-cert.pem", "client-key.pem", "server-key.pem"):
        (tmp_path / name).write_text(name)
    with ExitStack() as stack:
        disk = Disk("vdb", ConnectionInfo("nbd", address))
        found, given = follow(reach(disk, tmp_path, stack))
        *files, folder = given.values()
        links = {name: os.readlink(name, dir_fd=folder) for name in os.listdir(folder)}
        assert links == {
            "ca-cert.pem": "/proc/self/fd/100",
            "client-cert.pem": "/proc/self/fd/101",
            "client-key.pem": "/proc/self/fd/102",
        }
        assert [os.pread(each, 99, 0).decode() for each in files] == sorted(links)
    file = found.block["file"]
    assert file["server"] == {"type": "inet", "host": host, "port": port}
    assert (file["export"], found.socket) == (export, None)
    assert found.secret is not None
    assert file["tls-creds"] == found.secret["id"]
    assert found.secret["dir"] == "/proc/self/fd/103"


def test_no_disk_is_fetched_in_the_clear(tmp_path: Path) -> None:
    """A disk on another machine comes by TLS or not at all.

    Break: `plugins/bootvol_plugins/qemu/reach.py`: `if tls is None:` -> `if tls is False:`.
    """
    with pytest.raises(HypervisorFailed, match="names no credentials"):
        told("nbd", "nbds://host/a")
    with pytest.raises(HypervisorFailed, match="cannot open disks by nbd"):
        told("nbd", "nbd://host/a", tmp_path)


def test_a_node_stands_for_one_disk_in_one_place() -> None:
    names = {
        disks.node_name(Disk(device, ConnectionInfo(kind, address)))
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
    process = Qemu()
    process.errReceived(said[:10])
    process.errReceived(said[10:])
    assert process.complaint == complaint


def test_of_a_console_the_end_is_kept(tmp_path: Path) -> None:
    written = b"".join(b"line %d\r\n" % number for number in range(300_000))
    subprocess.run(keeper(Jail()), input=written, cwd=tmp_path, check=True, timeout=LIMIT)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 3 * console.HALF
    folder = os.open(tmp_path, os.O_PATH)
    try:
        for length in (0, 1, 1000, console.HALF):
            assert console.tail(folder, length) == written[len(written) - length :]
        assert written.endswith(console.tail(folder, len(written)))
        # Just before and just after a rotation, the second file has the content of the first.
        shutil.copyfile(tmp_path / "console.old", tmp_path / "console")
        assert console.tail(folder, 3 * console.HALF) == (tmp_path / "console").read_bytes()
        # Another start of the server succeeds.
        subprocess.run(keeper(Jail()), input=b"again", cwd=tmp_path, check=True, timeout=LIMIT)
        assert console.tail(folder, 5) == b"again"
    finally:
        os.close(folder)


def test_a_guest_does_not_stop_where_its_console_cannot_be_kept(tmp_path: Path) -> None:
    limited = ["prlimit", "--fsize=4096", *keeper(Jail())]
    subprocess.run(limited, input=bytes(1024 * 1024), cwd=tmp_path, check=True, timeout=LIMIT)
    assert (tmp_path / "console").stat().st_size == 4096


def test_images_of_ceph_are_named_as_their_address_says(tmp_path: Path) -> None:
    conf = tmp_path / "a:b@c\\d=e"
    conf.write_text("[global]\nmon_host = 192.0.2.1\n")
    written = re.sub(r"([\\:@=])", r"\\\1", str(conf))
    address = f"rbd:pool/space/image:id=ann:conf={written}"
    assert told("rbd", address).block["file"] == {
        "driver": "rbd",
        "pool": "pool",
        "namespace": "space",
        "image": "image",
        "conf": "/proc/self/fd/100",
        "user": "ann",
    }
    assert "namespace" not in told("rbd", r"rbd:pool/image:mon_host=192.0.2.1\:6789").block["file"]
    with pytest.raises(FileNotFoundError):
        told("rbd", "rbd:pool/image:id=ann:conf=/no/such/ceph.conf")


CONF = """
[global]
mon host = 192.0.2.1
{of_all}
[client.ann]
  rbd cache = false
"""
KEYRING = """
[client.admin]
\tkey = ADMIN==
[client.ann]
\tkey = ANN==
\tcaps mon = "profile rbd"
"""


@pytest.mark.parametrize("where", ["address", "setting", "name", "keyfile", "key", "nowhere"])
def test_qemu_gets_the_key_of_one_user(where: str, tmp_path: Path) -> None:
    """Break: `plugins/bootvol_plugins/qemu/ceph.py`: `key_in(Path(found),
    f"client.{name}")` -> `key_in(Path(found), "client.admin")`
    """
    keyring = tmp_path / "x.client.ann.keyring"
    keyring.write_text(KEYRING)
    (tmp_path / "key").write_text("ANN==\n")
    of_all = {
        "setting": f"keyring = {tmp_path}/none,{keyring}",
        "name": f"keyring = {tmp_path}/x.$name.keyring",
        "keyfile": f"keyfile = {tmp_path}/key",
        "key": "key = ANN==",
    }.get(where, f"keyring = {tmp_path}/none")
    conf = tmp_path / "ceph.conf"
    conf.write_text(CONF.format(of_all=of_all))
    said = {"id": "ann", "conf": str(conf)}
    if where == "address":
        said["keyring"] = str(keyring)
    # Ceph's library in QEMU reads the file in this way.
    handed = tmp_path / "handed"
    handed.write_bytes(ceph.configuration(said))
    library = load().rados.Rados(conffile=str(handed), rados_id="ann")
    settings = ("key", "keyring", "mon_host", "rbd_cache")
    assert [library.conf_get(each) for each in settings] == [
        "" if where == "nowhere" else "ANN==",
        "/dev/null",
        "192.0.2.1",
        "false",
    ]
    assert b"ADMIN" not in handed.read_bytes()


def test_what_is_no_keyring(tmp_path: Path) -> None:
    said = {"id": "ann", "mon_host": "192.0.2.1;192.0.2.2", "keyring": str(tmp_path / "key")}
    assert b"mon_host = 192.0.2.1,192.0.2.2\n" in ceph.configuration(said)
    (tmp_path / "key").write_bytes(b"ANN==\xff")
    with pytest.raises(HypervisorFailed, match="key is not a keyring"):
        ceph.configuration(said)
    (tmp_path / "conf").write_text("]")
    with pytest.raises(HypervisorFailed, match="Ceph's library does not accept"):
        ceph.configuration({"id": "ann", "conf": str(tmp_path / "conf")})


def test_qemu_may_write_to_the_whole_of_a_larger_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Break: `plugins/bootvol_plugins/qemu/folders.py`: `now < wanted:` -> `False:`"""
    monkeypatch.setattr(folders, "may_limit", lambda: True)
    folder = folders.Folder.make(tmp_path / "server-1")
    limited = ["prlimit", "--fsize=4096:unlimited", "sleep", "600"]
    with subprocess.Popen(limited) as process, (tmp_path / "disk").open("wb") as disk:
        try:
            block_until(lambda: resource.prlimit(process.pid, resource.RLIMIT_FSIZE)[0] == 4096)
            folder.note(process.pid)
            for size, limit in ((1, 4096), (8193, 12288), (8192, 12288)):
                disk.truncate(size)
                folder.make_room(disk.fileno())
                now, most = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
                assert (now, most) == (limit, resource.RLIM_INFINITY)
        finally:
            process.kill()
            folder.close()
