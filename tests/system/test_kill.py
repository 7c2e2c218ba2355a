"""kill -9 at any moment: every import goes on, none is wrong, nothing is left."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from demo.bootdisk import HELLO, disk
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread

from bootvol.testing.backends import noise
from bootvol.testing.web import BadWeb
from tests.daemons import pause, reactor
from tests.processes import Process
from tests.servers import Server, serve

#: A disk that boots, and more.
CONTENT = disk() + noise(24 * 1024 * 1024 + 333)
KILLS = 25
#: Together about as long as the imports take when nobody disturbs them.
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
    """A server that takes its time."""
    return BadWeb(CONTENT, reactor, RATE)


@pytest.fixture
def server(web: BadWeb) -> Iterator[Server]:
    """It runs."""
    with serve(web) as server:
        yield server


@ensureDeferred
async def test_killed_at_random_moments(tmp_path: Path, web: BadWeb, server: Server) -> None:
    """The seed is printed when it fails: the moments are chance, the outcome is not."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    daemon = await deferToThread(Process, tmp_path, CONFIG.format(url=server.url))
    try:
        volumes: list[int] = []
        for kill in range(KILLS):
            # Now and then something new, and something that is no longer wanted.
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
        files = sorted(daemon.volumes.iterdir())
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
async def test_a_machine_boots_from_what_was_resumed(
    tmp_path: Path, web: BadWeb, server: Server
) -> None:
    daemon = await deferToThread(Process, tmp_path, CONFIG.format(url=server.url))
    try:
        volume = await deferToThread(daemon.create, f"{server.url}images/slow")
        progress = f"hp-bootable-volumes/{volume}/import"
        while not any(web.requests["slow"]):
            # Until one asks for the rest: killed when some of it was durable.
            if (await deferToThread(daemon.get, progress))["import"]["bytesDone"] > 2**22:
                await deferToThread(daemon.stop, signal.SIGKILL)
                await deferToThread(daemon.start)
            await pause(0.1)
        assert await deferToThread(daemon.until_settled) == ["available"]
        arguments = ["volume", "boot", str(volume), "--seconds", "20"]
        booted = await deferToThread(daemon.cli, *arguments)
        assert f"{HELLO}01." in booted.stdout
    finally:
        await deferToThread(daemon.stop)
