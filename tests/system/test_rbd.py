"""Separate daemons on a Ceph cluster: killed at any moment, and machines that boot from images."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from demo.bootdisk import HELLO
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread

from bootvol.jail import FIRST_USER
from bootvol.model import GIB
from bootvol.testing.web import BadWeb
from bootvol_plugins.qemu.folders import Folder
from tests import guest
from tests.ceph import Cluster
from tests.daemons import Running, reactor
from tests.processes import Process
from tests.servers import Server, serve
from tests.system.test_kill import CONFIG, CONTENT, RATE, ask, killed_until_resumed
from tests.system.test_kill_copies import Stored, kill_among_copies
from tests.system.test_servers import HOSTING, boot, end, extend, says
from tests.waiting import block_until


@pytest.fixture
def web() -> BadWeb:
    """A slow server."""
    return BadWeb(CONTENT, reactor, RATE)


@pytest.fixture
def server(web: BadWeb) -> Iterator[Server]:
    """The running server."""
    with serve(web) as server:
        yield server


@ensureDeferred
async def test_a_machine_boots_from_what_was_resumed(
    tmp_path: Path, web: BadWeb, server: Server, ceph_cluster: Cluster
) -> None:
    """The daemon is killed half way; then QEMU reads and writes the image itself."""
    daemon = await deferToThread(
        Process, tmp_path, CONFIG.format(url=server.url), first=ceph_cluster.table()
    )
    try:
        volume = await deferToThread(daemon.create, f"{server.url}images/slow")
        await killed_until_resumed(daemon, web, volume)
        assert await deferToThread(daemon.until_settled) == ["available"]
        for count in ("01", "02"):
            booted = await deferToThread(
                daemon.cli, "volume", "boot", str(volume), "--seconds", "20"
            )
            assert f"{HELLO}{count}." in booted.stdout, booted.stderr
    finally:
        await deferToThread(daemon.stop)


@ensureDeferred
async def test_a_server_runs_on_an_image(
    tmp_path: Path, guest_image: Path, ceph_cluster: Cluster
) -> None:
    """The guest writes to its boot disk, and releases a plugged disk.

    Break: `plugins/bootvol_plugins/qemu/machine.py`: `locks=PROCESS,` -> `locks=PROCESS,
    as_us=True,`
    """
    daemon = Running(tmp_path, HOSTING, first=ceph_cluster.table("cache_gib = 0"))
    shutil.copy(guest_image, daemon.images / "linux")
    try:
        root = await daemon.create("linux")
        data = await daemon.create()
        for volume in (root, data):
            assert await daemon.until(volume, "available", "error") == "available"
        for count in (1, 2):
            server = await boot(daemon, root)
            await says(daemon, server, f"bootvol guest: boot {count};")
            await says(daemon, server, guest.READY)
            (folder,) = (tmp_path / "servers").iterdir()
            assert _has_a_user_of_its_own(folder)
            plugged = {"volumeAttachment": {"volumeId": data, "device": "/dev/vdb"}}
            path = f"servers/{server}/os-volume_attachments"
            assert (await daemon.call("POST", path, plugged)).status == 200
            assert await daemon.until(data, "in-use", "error") == "in-use"
            await says(daemon, server, "vdb")
            assert (await extend(daemon, data, count + 1)).status == 202
            await says(daemon, server, f"disk vdb becomes {(count + 1) * GIB} bytes")
            assert await daemon.until(data, "in-use", "error") == "in-use"
            assert (await daemon.call("DELETE", f"{path}/{data}")).status == 202
            assert await daemon.until(data, "available", "error") == "available"
            await end(daemon, server)
    finally:
        await daemon.stop()


def _has_a_user_of_its_own(folder: Path) -> bool:
    """Return whether a server's QEMU is confined, with no process of the daemon's user."""
    opened = Folder(folder)
    process = opened.process()
    opened.close()
    status = Path(f"/proc/{process}/status").read_text()
    user = FIRST_USER + (process or 0)
    return f"Uid:\t{user}\t{user}\t{user}\t{user}\n" in status and "Seccomp:\t2" in status


@ensureDeferred
async def test_killed_among_snapshots(tmp_path: Path, ceph_cluster: Cluster) -> None:
    """The clients' requests are random; a failure prints the seed."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    await deferToThread(_kill_among_snapshots, tmp_path, ceph_cluster, random.Random(seed))


def _kill_among_snapshots(folder: Path, cluster: Cluster, chance: random.Random) -> None:
    others, objects = set(cluster.images()), set(cluster.left())
    table = cluster.table("cache_gib = 0")
    daemon = Process(folder, "[quota]\nvolumes = 1000\nsnapshots = 1000", first=table)
    (daemon.images / "disk").write_bytes(CONTENT)
    try:
        daemon.create("disk")
        for _ in range(6):
            for _ in range(chance.randint(1, 8)):
                ask(daemon, chance)
            time.sleep(chance.uniform(0, 1.5))
            daemon.stop(signal.SIGKILL)
            daemon.start()
        assert set(daemon.until_settled()) <= {"available", "in-use"}
        volumes = daemon.get("os-volumes")["volumes"]
        snapshots = daemon.get("os-snapshots")["snapshots"]
        for name in set(cluster.images()) - others:
            # Cached images are removed by the daemon itself.
            if not name.startswith("golden-"):
                with cluster.image(name) as image:
                    assert image.read(0, len(CONTENT)) == CONTENT
        for snapshot in snapshots:
            daemon.call("DELETE", f"os-snapshots/{snapshot['id']}")
        for volume in volumes:
            for attachment in filter(None, volume["attachments"]):
                path = f"servers/{attachment['serverId']}/os-volume_attachments/{volume['id']}"
                daemon.call("DELETE", path)
        daemon.until_settled()
        for volume in volumes:
            daemon.call("DELETE", f"os-volumes/{volume['id']}")
        daemon.until_settled()
        assert daemon.statuses() == []
        block_until(lambda: set(cluster.left()) - objects, lambda left: not left)
        assert "Traceback" not in daemon.log.read_text()
    finally:
        # A failure shows the log, without the requests.
        lines = daemon.log.read_text().splitlines()
        print("\n".join([each for each in lines if "api.access" not in each][-100:]))
        daemon.stop()


@ensureDeferred
async def test_killed_among_copies(tmp_path: Path, ceph_cluster: Cluster) -> None:
    """The clients' requests are random; a failure prints the seed."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    others = set(ceph_cluster.images())

    def names() -> list[str]:
        return [each for each in ceph_cluster.images() if each not in others]

    def read(name: str, length: int) -> bytes:
        with ceph_cluster.image(name) as image:
            return bytes(image.read(0, length))

    table = ceph_cluster.table("cache_gib = 0")
    stored = Stored("ceph", names, read)
    await deferToThread(kill_among_copies, tmp_path, table, stored, 8, random.Random(seed))
