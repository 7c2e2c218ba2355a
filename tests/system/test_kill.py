"""kill -9 at any moment: every import resumes, none is wrong, and nothing is left."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from demo.bootdisk import HELLO, disk
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread

from bootvol.testing.backends import noise
from bootvol.testing.web import BadWeb
from tests.daemons import pause, reactor
from tests.processes import Process
from tests.servers import Server, serve

#: A bootable disk, and more.
CONTENT = disk() + noise(24 * 1024 * 1024 + 333)
KILLS = 25
#: Together about as long as undisturbed imports take.
RATE = 6 * 1024 * 1024
CONFIG = """
[imports]
buffer_kib = 256
checkpoint_mib = 1

[[sources]]
name = "web"
plugin = "http"
allow = ["{url}images/"]
networks = ["127.0.0.0/8", "::1/128"]
"""


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
async def test_killed_at_random_moments(tmp_path: Path, web: BadWeb, server: Server) -> None:
    """A failure prints the seed: the moments are random, the outcome is not."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    daemon = await deferToThread(Process, tmp_path, CONFIG.format(url=server.url))
    try:
        volumes: list[int] = []
        for kill in range(KILLS):
            # Now and then, a new volume or a deletion.
            if kill % 5 == 0:
                made = await deferToThread(daemon.create, f"{server.url}images/slow")
                volumes.append(made)
            if kill in (9, 17):
                await deferToThread(daemon.delete, volumes.pop(0))
            await pause(chance.uniform(0, 1.5))
            await deferToThread(daemon.stop, signal.SIGKILL)
            await deferToThread(daemon.start)
        statuses = await deferToThread(daemon.until_settled)
        assert statuses == ["available"] * len(volumes)
        files = daemon.files()
        assert len(files) == len(volumes), "no stray file is left"
        for file in files:
            with file.open("rb") as volume:
                assert volume.read(len(CONTENT)) == CONTENT
                assert not any(volume.read(1024 * 1024))
        assert any(web.requests["slow"]), "imports went on in their middle"
        assert "Traceback" not in daemon.log.read_text()
    finally:
        await deferToThread(daemon.stop)


@ensureDeferred
async def test_killed_among_snapshots_and_attachments(tmp_path: Path) -> None:
    """The clients' requests are random; a failure prints the seed."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    await deferToThread(_kill_among_snapshots, tmp_path, random.Random(seed))


def _kill_among_snapshots(folder: Path, chance: random.Random) -> None:
    daemon = Process(folder, "[quota]\nvolumes = 1000\nsnapshots = 1000")
    (daemon.images / "disk").write_bytes(CONTENT)
    try:
        daemon.create("disk")
        for _ in range(12):
            for _ in range(chance.randint(1, 12)):
                ask(daemon, chance)
            time.sleep(chance.uniform(0, 0.5))
            daemon.stop(signal.SIGKILL)
            daemon.start()
        assert set(daemon.until_settled()) <= {"available", "in-use"}
        volumes = daemon.get("os-volumes")["volumes"]
        snapshots = daemon.get("os-snapshots")["snapshots"]
        for volume in volumes:
            assert bool(volume["attachments"]) == (volume["status"] == "in-use")
        files = daemon.files()
        assert len(files) == len(volumes) + len(snapshots), "no stray file is left"
        for file in files:
            with file.open("rb") as held:
                assert held.read(len(CONTENT)) == CONTENT
        assert "Traceback" not in daemon.log.read_text()
    finally:
        daemon.stop()


def ask(daemon: Process, chance: random.Random) -> None:
    """Send a random request; a refusal is a valid answer, too."""
    volumes = [each["id"] for each in daemon.get("os-volumes")["volumes"]] or [0]
    snapshots = [each["id"] for each in daemon.get("os-snapshots")["snapshots"]] or [0]
    volume, snapshot = chance.choice(volumes), chance.choice(snapshots)
    attachments = "servers/7/os-volume_attachments"
    asked: tuple[str, str, Any] = chance.choice(
        [
            ("POST", "os-volumes", {"volume": {"size": 1, "imageRef": "disk"}}),
            ("POST", "os-volumes", {"volume": {"snapshot_id": snapshot}}),
            ("POST", "os-snapshots", {"snapshot": {"volume_id": volume}}),
            ("POST", attachments, {"volumeAttachment": {"volumeId": volume}}),
            ("DELETE", f"{attachments}/{volume}", None),
            ("DELETE", f"os-volumes/{volume}", None),
            ("DELETE", f"os-snapshots/{snapshot}", None),
        ]
    )
    try:
        daemon.call(*asked)
    except HTTPError as answer:
        refused = answer.code
        answer.close()
    else:
        return
    assert refused in {400, 404}, asked


async def killed_until_resumed(daemon: Process, web: BadWeb, volume: int) -> None:
    """Kill a daemon after part of an import is durable; wait for the next daemon's request."""
    progress = f"hp-bootable-volumes/{volume}/import"
    while not any(web.requests["slow"]):
        asked = len(web.requests["slow"])
        while (await deferToThread(daemon.get, progress))["import"]["bytesDone"] <= 2**22:
            await pause(0.1)
        await deferToThread(daemon.stop, signal.SIGKILL)
        await deferToThread(daemon.start)
        # The row still has the progress of the former daemon.
        while len(web.requests["slow"]) == asked:
            assert (await deferToThread(daemon.get, progress))["import"]["phase"] != "done"
            await pause(0.1)


@ensureDeferred
async def test_a_machine_boots_from_what_was_resumed(
    tmp_path: Path, web: BadWeb, server: Server
) -> None:
    daemon = await deferToThread(Process, tmp_path, CONFIG.format(url=server.url))
    try:
        volume = await deferToThread(daemon.create, f"{server.url}images/slow")
        await killed_until_resumed(daemon, web, volume)
        assert await deferToThread(daemon.until_settled) == ["available"]
        (file,) = daemon.files()
        with file.open("rb") as held:
            assert held.read(len(CONTENT) + 1024) == CONTENT + bytes(1024)
        arguments = ["volume", "boot", str(volume), "--seconds", "20"]
        booted = await deferToThread(daemon.cli, *arguments)
        assert f"{HELLO}01." in booted.stdout
    finally:
        await deferToThread(daemon.stop)
