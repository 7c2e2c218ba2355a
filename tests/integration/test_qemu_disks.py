"""Disks of QEMU's servers: properties invisible to the contract suite."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, gatherResults

from bootvol.devices import check_unused, check_unwritten
from bootvol.errors import HypervisorFailed, VolumeInUse
from bootvol.exports.exports import Exports
from bootvol.jail import FIRST_USER, Jail, may_limit
from bootvol.model import ConnectionInfo, Disk
from bootvol.threads import Threads
from bootvol_plugins.qemu import disks
from bootvol_plugins.qemu.folders import Folder
from bootvol_plugins.qemu.hypervisor import QemuHypervisor
from bootvol_plugins.qemu.qmp import Qmp, connected
from tests import guest
from tests.daemons import reactor
from tests.disks import block_device, disk
from tests.exports import HOST, credentials, server, unix
from tests.machines import MIB, disk_file, hypervisor, machine, says, server_name
from tests.servers import free_port
from tests.waiting import LIMIT, LONG_LIMIT, until

SERVER, OTHER = server_name(), server_name()


@ensureDeferred
async def test_no_disk_is_in_two_servers(qemu: QemuHypervisor, empty: ConnectionInfo) -> None:
    await qemu.start(SERVER, machine(empty))
    with pytest.raises(HypervisorFailed, match=rf'{OTHER} does not start: .*get "write" lock\.'):
        await qemu.start(OTHER, machine(empty))
    assert list(await qemu.running()) == [SERVER]


@ensureDeferred
async def test_a_disk_that_a_server_has_is_not_plugged_into_another(
    qemu: QemuHypervisor, empty: ConnectionInfo, tmp_path: Path
) -> None:
    await qemu.start(SERVER, machine(empty))
    await qemu.start(OTHER, machine(disk_file(tmp_path / "another.raw")))
    with pytest.raises(HypervisorFailed, match=r'does not take vdb: .*get "write" lock'):
        await qemu.attach(OTHER, Disk("vdb", empty))
    await qemu.stop(SERVER)
    await qemu.attach(OTHER, Disk("vdb", empty))


@ensureDeferred
async def test_disks_are_plugged_in_one_after_the_other(
    qemu: QemuHypervisor, empty: ConnectionInfo, tmp_path: Path
) -> None:
    await qemu.start(SERVER, machine(empty))
    letters = "bcdefgh"
    spare = [Disk(f"vd{x}", disk_file(tmp_path / f"{x}.raw")) for x in letters]
    await gatherResults([Deferred.fromCoroutine(qemu.attach(SERVER, disk)) for disk in spare])
    async with _monitor(tmp_path) as qmp:
        plugged = await qmp.execute("qom-list", {"path": "/machine/peripheral"})
    assert {f"vd{x}" for x in letters} < {each["name"] for each in plugged}


@ensureDeferred
async def test_qemu_writes_to_the_whole_of_its_largest_disk_and_no_further(
    qemu: QemuHypervisor, empty: ConnectionInfo, tmp_path: Path
) -> None:
    larger = tmp_path / "larger.raw"
    larger.write_bytes(bytes(2 * MIB + 512))
    await qemu.start(SERVER, machine(empty))
    folder = Folder(tmp_path / "servers" / SERVER)
    process = folder.process()
    folder.close()
    assert process is not None
    if os.geteuid() == 0 and not may_limit():
        assert _limit(process) == resource.RLIM_INFINITY
        return
    assert _limit(process) == MIB
    await qemu.attach(SERVER, Disk("vdb", ConnectionInfo("file", str(larger))))
    assert _limit(process) == 2 * MIB + 4096
    less = Disk("vdc", disk_file(tmp_path / "less.raw"))
    await qemu.attach(SERVER, less)
    assert _limit(process) == 2 * MIB + 4096
    os.truncate(less.connection.address, 3 * MIB)
    await qemu.resize(SERVER, less, 3 * MIB)
    assert _limit(process) == 3 * MIB


def _limit(process: int) -> int:
    """Return the largest size of a file that a process may write, in bytes."""
    limits = Path(f"/proc/{process}/limits").read_text()
    found = re.search(r"^Max file size +(\w+) ", limits, re.MULTILINE)
    assert found is not None
    return resource.RLIM_INFINITY if found[1] == "unlimited" else int(found[1])


@ensureDeferred
async def test_only_what_a_disk_should_be_is_one(
    qemu: QemuHypervisor, empty: ConnectionInfo, tmp_path: Path
) -> None:
    link, pipe = tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(empty.address)
    os.mkfifo(pipe)
    for kind, path in (("file", link), ("file", pipe), ("file", tmp_path), ("block", pipe)):
        with pytest.raises(HypervisorFailed):
            await qemu.start(SERVER, machine(ConnectionInfo(kind, str(path))))
    for kind, address in (("iscsi", "pool/volume"), ("nbd", "nbd://localhost/x")):
        with pytest.raises(HypervisorFailed, match="QEMU cannot open disks"):
            await qemu.start(SERVER, machine(ConnectionInfo(kind, address)))
    assert not await qemu.running()


@ensureDeferred
async def test_a_guest_that_does_not_let_go(
    tmp_path: Path, threads: Threads, qemu: QemuHypervisor, empty: ConnectionInfo
) -> None:
    impatient = hypervisor(tmp_path, threads, detach_timeout=1.0)
    spare = Disk("vdb", disk_file(tmp_path / "spare.raw"))
    await impatient.start(SERVER, machine(empty))
    await impatient.attach(SERVER, spare)
    for _ in range(2):
        with pytest.raises(
            HypervisorFailed, match="does not release vdb: the disk is still plugged"
        ):
            await impatient.detach(SERVER, "vdb")
    with pytest.raises(HypervisorFailed, match="lock"):
        await impatient.start(OTHER, machine(spare.connection))
    await qemu.stop(SERVER)
    await qemu.start(OTHER, machine(spare.connection))


@ensureDeferred
async def test_a_guest_lets_go_once_it_has_started(
    qemu: QemuHypervisor, linux: ConnectionInfo, tmp_path: Path
) -> None:
    """The request is repeated, since a starting guest does not notice requests."""
    await qemu.start(SERVER, machine(linux))
    await qemu.attach(SERVER, Disk("vdb", disk_file(tmp_path / "spare.raw")))
    await qemu.detach(SERVER, "vdb")
    await says(qemu, SERVER, "boot 1; found files: none")


@ensureDeferred
async def test_what_an_attempt_left_is_used_or_taken_away(
    qemu: QemuHypervisor, linux: ConnectionInfo, tmp_path: Path
) -> None:
    await qemu.start(SERVER, machine(linux))
    await says(qemu, SERVER, guest.READY)
    one, two = (
        Disk("vdb", disk_file(tmp_path / name, guest.WRITE)) for name in ("one.raw", "two.raw")
    )
    # The disk is open, but not plugged in.
    await _leave(qemu, tmp_path, one)
    await qemu.detach(SERVER, "vdb")
    await _leave(qemu, tmp_path, one)
    await _leave(qemu, tmp_path, two)
    await qemu.attach(SERVER, one)
    await says(qemu, SERVER, "wrote to vdb")
    with pytest.raises(HypervisorFailed, match="has another disk as vdb"):
        await qemu.attach(SERVER, two)
    await qemu.detach(SERVER, "vdb")
    assert (tmp_path / "one.raw").read_bytes()[512:529] == b"written by boot 1"
    assert (tmp_path / "two.raw").read_bytes()[512:529] == bytes(17)
    async with _monitor(tmp_path) as qmp:
        fdsets = await qmp.execute("query-fdsets")
        opened = {each["opaque"] for fdset in fdsets for each in fdset["fds"] if "opaque" in each}
        assert opened == {disks.node_name(Disk("vda", linux))}
    await qemu.start(OTHER, machine(one.connection, two.connection))


@ensureDeferred
async def test_a_descriptor_that_qemu_keeps_is_noticed(
    qemu: QemuHypervisor, empty: ConnectionInfo, tmp_path: Path
) -> None:
    """A guest in control of QEMU says that the disk is gone, and keeps the descriptor.

    Break: `src/bootvol/devices.py`: `fcntl.F_SETLEASE, fcntl.F_RDLCK)` -> `fcntl.F_SETLEASE,
    fcntl.F_UNLCK)`
    """
    with disk(tmp_path / "mounted", 16 * MIB, "ext4") as mounted:
        path = mounted.folder / "spare.raw"
        spare = Disk("vdb", disk_file(path))
        await qemu.start(SERVER, machine(empty))
        await _leave(qemu, tmp_path, spare)
        with _read(path) as descriptor:
            with pytest.raises(VolumeInUse):
                check_unwritten(descriptor, "spare")
            await qemu.detach(SERVER, "vdb")
            check_unwritten(descriptor, "spare")
        async with _monitor(tmp_path) as qmp:
            with path.open("r+b") as kept:
                await qmp.execute("add-fd", {"opaque": "another"}, kept.fileno())
        await qemu.detach(SERVER, "vdb")
        with _read(path) as descriptor:
            check_unused(descriptor, "spare")
            with pytest.raises(VolumeInUse):
                check_unwritten(descriptor, "spare")
            await qemu.stop(SERVER)
            check_unwritten(descriptor, "spare")


@contextmanager
def _read(path: Path) -> Iterator[int]:
    with path.open("rb") as file:
        yield file.fileno()


async def _leave(qemu: QemuHypervisor, folder: Path, disk: Disk) -> None:
    """Do half of the steps of plugging in a disk."""
    async with _monitor(folder) as qmp:
        await qemu._add(qmp, SERVER, disk)


@asynccontextmanager
async def _monitor(folder: Path) -> AsyncIterator[Qmp]:
    opened = Folder(folder / "servers" / SERVER)
    try:
        async with connected(reactor, opened.socket) as qmp:
            yield qmp
    finally:
        opened.close()


@ensureDeferred
async def test_a_block_device(qemu: QemuHypervisor, tmp_path: Path) -> None:
    with block_device(tmp_path / "disk", 4 * MIB) as device:
        # The names used by LVM and udev.
        link = tmp_path / "link"
        link.symlink_to(device.path)
        connection = ConnectionInfo("block", str(link))
        await qemu.start(SERVER, machine(connection))
        await says(qemu, SERVER, "No bootable device.")
        with pytest.raises(HypervisorFailed, match="lock"):
            await qemu.start(OTHER, machine(connection))
        os.truncate(tmp_path / "disk", 8 * MIB)
        subprocess.run(["losetup", "--set-capacity", device.path], check=True)
        await qemu.resize(SERVER, Disk("vda", connection), 8 * MIB)
        async with _monitor(tmp_path) as qmp:
            found = await qmp.execute("query-block")
        assert [each["inserted"]["image"]["virtual-size"] for each in found] == [8 * MIB]
        await qemu.stop(SERVER)


@ensureDeferred
async def test_disks_that_are_served(
    qemu: QemuHypervisor, linux: ConnectionInfo, tmp_path: Path
) -> None:
    local, remote = tmp_path / "local.raw", tmp_path / "remote.raw"
    for path in (local, remote):
        disk_file(path, guest.WRITE)
    credentials(tmp_path / "tls")
    port = free_port()
    tls = f"tls-creds-x509,id=tls,endpoint=server,dir={tmp_path / 'tls'},verify-peer=yes"
    secure = [
        *("--object", tls, "--tls-creds", "tls", "--bind", HOST, "--port", str(port)),
        *("--export-name", "a disk"),
    ]
    folder = tmp_path / "sockets"
    folder.mkdir()
    # QEMU has a user of its own, while root owns these files.
    folder.chmod(0o711)
    socket = folder / "nbd"
    with _served(linux.address, "--socket", str(socket), "--export-name", "root"):
        with _served(str(remote), *secure):
            boot = ConnectionInfo("nbd", f"nbd+unix:///root?socket={socket}")
            served = ConnectionInfo("nbd", f"nbds://{HOST}:{port}/a%20disk")
            await qemu.start(SERVER, machine(boot, served))
            await says(qemu, SERVER, "wrote to vdb")
            await says(qemu, SERVER, guest.READY)
            await qemu.detach(SERVER, "vdb")
            await says(qemu, SERVER, "vdb is gone")
            assert remote.read_bytes()[512:529] == b"written by boot 1"
            disk_file(remote, guest.WRITE)
            await qemu.attach(SERVER, Disk("vdb", served))
            await until(
                lambda: remote.read_bytes()[512:529],
                lambda written: written == b"written by boot 1",
                LONG_LIMIT,
            )
        # While the disk's server is gone, the guest's requests wait for its return.
        with _served(str(remote), *secure):
            await qemu.detach(SERVER, "vdb")
    await qemu.stop(SERVER)


@ensureDeferred
async def test_a_disk_that_is_exported_here_is_its_servers_alone(
    tmp_path: Path, threads: Threads, empty: ConnectionInfo
) -> None:
    """QEMU has a user of its own, and reconnects to a restarted export.

    Break: `plugins/bootvol_plugins/qemu/machine.py`: `locks=PROCESS,` -> `locks=PROCESS,
    as_us=True,`
    Break: `src/bootvol/exports/listeners.py`: `os.chown(path, owner, -1)` -> `pass`
    """
    qemu = hypervisor(tmp_path, threads, remote_disks=True)
    with TemporaryDirectory(prefix="bootvol", dir="/tmp") as short:
        exports = Exports(unix(Path(short)), threads, reactor, Jail())
        found = {
            name: await exports.open(name, disk_file(tmp_path / name, name.encode()))
            for name in ("one", "two")
        }
        one, two = Disk("vdb", found["one"]), Disk("vdc", found["two"])
        try:
            await qemu.start(SERVER, machine(empty, one.connection))
            await qemu.attach(SERVER, two)
            for name, disk in (("one", one), ("two", two)):
                await server(Path(short), name).end(reactor, 30)
                assert await exports.open(name, ConnectionInfo("file", str(tmp_path / name)))
                async with _monitor(tmp_path) as qmp:
                    # Without a connection this takes a minute, longer than QMP waits.
                    read = f'qemu-io {disks.node_name(disk)} "read 0 512"'
                    await qmp.execute("human-monitor-command", {"command-line": read})
            folder = Folder(tmp_path / "servers" / SERVER)
            status = Path(f"/proc/{folder.process()}/status").read_text()
            user = FIRST_USER + (folder.process() or 0) if os.geteuid() == 0 else os.geteuid()
            folder.close()
            assert f"Uid:\t{user}\t{user}\t{user}\t{user}\n" in status
            assert {path.stat().st_uid for path in Path(short, "e", "s").iterdir()} == {user}
        finally:
            await qemu.stop(SERVER)
            for name in found:
                await exports.close(name)


@contextmanager
def _served(*words: str) -> Iterator[None]:
    """Serve a raw disk by NBD until the end of the block, beginning with the first listener."""
    command = ["qemu-nbd", "--format", "raw", "--persistent", "--fork", "--pid-file"]
    path = Path(words[0])
    pid_file = path.with_name(f"{path.name}.pid")
    subprocess.run([*command, str(pid_file), *words[1:], str(path)], check=True, timeout=LIMIT)
    server = os.pidfd_open(int(pid_file.read_text()))
    try:
        yield
    finally:
        signal.pidfd_send_signal(server, signal.SIGKILL)
        os.close(server)


@ensureDeferred
async def test_a_guest_only_reads_a_read_only_disk(
    qemu: QemuHypervisor, linux: ConnectionInfo, tmp_path: Path
) -> None:
    """Break: `plugins/bootvol_plugins/qemu/reach.py`: `only = {"read-only": True} if` -> `only =
    {} if`.
    """
    spare = disk_file(tmp_path / "spare.raw", guest.WRITE)
    held = Path(spare.address).read_bytes()
    await qemu.start(SERVER, machine(linux))
    await says(qemu, SERVER, guest.READY)
    await qemu.attach(SERVER, Disk("vdb", ConnectionInfo("file", spare.address, read_only=True)))
    await says(qemu, SERVER, "wrote to vdb")
    assert Path(spare.address).read_bytes() == held
    async with _monitor(tmp_path) as qmp:
        nodes = await qmp.execute("query-named-block-nodes", {})
    read_only = {each["node-name"][:4]: each["ro"] for each in nodes}
    assert (read_only["vda-"], read_only["vdb-"]) == (False, True)
