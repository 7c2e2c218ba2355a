"""A daemon is stopped beyond its leases, and continues after another daemon has finished its work.

The stopped daemon may still write to a volume, make it anew or delete it. By then a guest may have
the volume.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pytest_twisted import ensureDeferred
from sqlalchemy import make_url
from twisted.internet.threads import deferToThread

from bootvol.model import ConnectionInfo
from bootvol.store.database import Database
from bootvol.testing.backends import noise
from bootvol.testing.shared import opened
from bootvol.testing.web import BadWeb
from tests.daemons import reactor
from tests.processes import Process
from tests.servers import Server, serve
from tests.waiting import block_until

MIB = 1024 * 1024
CONTENT = noise(24 * MIB + 333)
RATE = 8 * MIB
CONFIG = """
[imports]
buffer_kib = 256
checkpoint_mib = 1

[quota]
volumes = -1

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


class Pair:
    """Two daemons with a common database and a common directory of volumes.

    :ivar first: claims the work, and is then stopped.
    :ivar second: takes the work over.
    """

    def __init__(self, folder: Path, url: str, more: str) -> None:
        Database(make_url(url).set(drivername="postgresql+psycopg"), reactor).upgrade()
        self.db = psycopg.connect(url, autocommit=True)
        self.db.execute("SET lock_timeout = '500ms'")
        self.first, self.second = (
            Process(
                folder,
                more,
                state=f'url = "{url}"\ndirectory = "state-{name}"',
                name=f"-{name}",
                backend="shared = true",
            )
            for name in "ab"
        )
        self.volumes = self.first.volumes

    def ask(self, *images: str | None) -> list[int]:
        """Let the first daemon alone make volumes of images; return their ids."""
        self.second.process.send_signal(signal.SIGSTOP)
        wanted = [{"size": 1, **({"imageRef": image} if image else {})} for image in images]
        return [
            self.first.call("POST", "os-volumes", {"volume": each})["volume"]["id"]
            for each in wanted
        ]

    def take_over(self) -> None:
        """Stop the first daemon at once, and let its leases expire."""
        while True:
            self.first.process.send_signal(signal.SIGSTOP)
            try:
                self.db.execute("UPDATE volumes SET lease_until = 0 WHERE worker IS NOT NULL")
            except psycopg.errors.LockNotAvailable:
                # The daemon was stopped within a transaction.
                self.first.process.send_signal(signal.SIGCONT)
                time.sleep(0.05)
            else:
                break
        self.second.process.send_signal(signal.SIGCONT)

    def rows(self, query: str) -> list[Any]:
        """Return rows of the database."""
        return [row[0] for row in self.db.execute(query.encode())]

    def files(self) -> set[str]:
        """Return the names in the directory of volumes."""
        return {file.stem for file in self.first.files()}

    def stop(self) -> None:
        """End both daemons."""
        for each in (self.first, self.second):
            each.process.send_signal(signal.SIGCONT)
            each.stop()
        self.db.close()


def _pair(folder: Path, url: str, server: Server, test: Callable[[Pair], None]) -> None:
    pair = Pair(folder, url, CONFIG.format(url=server.url))
    try:
        test(pair)
    finally:
        pair.stop()


@ensureDeferred
async def test_a_guest_never_sees_what_a_stopped_daemon_still_writes(
    tmp_path: Path, new_postgresql: Callable[[], str], web: BadWeb, server: Server
) -> None:
    def test(pair: Pair) -> None:
        asked = pair.ask(*[f"{server.url}images/slow"] * 2, None)
        began = "SELECT volume_id FROM imports WHERE durable_bytes > 2000000"
        block_until(lambda: set(asked[:2]) <= set(pair.rows(began)))
        pair.take_over()
        former = set(pair.rows("SELECT name FROM strays"))
        assert pair.second.until_settled() == ["available"] * 3
        assert any(web.requests["slow"]), "what was durable was not fetched again"
        published = set(pair.rows("SELECT name FROM volumes"))
        guest = b"G" * len(CONTENT)
        found = []
        for name in published:
            with (pair.volumes / f"{name}.raw").open("r+b") as volume:
                found.append(volume.read(len(CONTENT) + MIB))
                volume.seek(0)
                volume.write(guest)
        right = CONTENT + bytes(MIB)
        assert sorted(found) == sorted([right, right, bytes(len(right))])
        pair.first.process.send_signal(signal.SIGCONT)
        block_until(lambda: pair.files() == published)
        block_until(lambda: not pair.rows("SELECT name FROM strays"))
        time.sleep(1)
        for name in published:
            assert (pair.volumes / f"{name}.raw").read_bytes()[: len(CONTENT)] == guest
        assert not former & published
        assert pair.first.statuses() == ["available"] * 3
        for each in (pair.first, pair.second):
            assert "Traceback" not in each.log.read_text()

    await deferToThread(_pair, tmp_path, new_postgresql(), server, test)


@ensureDeferred
async def test_a_volume_that_is_deleted_meanwhile_leaves_nothing(
    tmp_path: Path, new_postgresql: Callable[[], str], server: Server
) -> None:
    def test(pair: Pair) -> None:
        (asked,) = pair.ask(f"{server.url}images/slow")
        block_until(lambda: bool(pair.rows("SELECT 1 FROM imports WHERE durable_bytes > 2000000")))
        pair.take_over()
        (file,) = pair.first.files()
        # For a logical volume, the stopped daemon keeps the device open like this.
        with opened(ConnectionInfo("file", str(file)), tmp_path):
            pair.second.delete(asked)
            block_until(lambda: pair.second.statuses() == [])
            assert file.exists()
        pair.first.process.send_signal(signal.SIGCONT)
        block_until(lambda: pair.files() == set() and not pair.rows("SELECT name FROM strays"))

    await deferToThread(_pair, tmp_path, new_postgresql(), server, test)


@ensureDeferred
async def test_what_a_daemon_that_was_killed_had_begun_goes(
    tmp_path: Path, new_postgresql: Callable[[], str], server: Server
) -> None:
    def test(pair: Pair) -> None:
        pair.ask(f"{server.url}images/slow")
        block_until(lambda: bool(pair.rows("SELECT 1 FROM imports WHERE durable_bytes > 2000000")))
        pair.take_over()
        pair.second.until_settled()
        pair.first.process.send_signal(signal.SIGCONT)
        pair.first.stop(signal.SIGKILL)
        pair.first.start()
        published = set(pair.rows("SELECT name FROM volumes"))
        block_until(lambda: pair.files() == published)
        block_until(lambda: not pair.rows("SELECT name FROM strays"))
        (name,) = published
        assert (pair.volumes / f"{name}.raw").read_bytes()[: len(CONTENT)] == CONTENT

    await deferToThread(_pair, tmp_path, new_postgresql(), server, test)
