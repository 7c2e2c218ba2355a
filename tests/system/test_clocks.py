"""The clocks of machines jump by hours, back and forward, while daemons work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from sqlalchemy import make_url
from twisted.internet.threads import deferToThread

from bootvol.store.database import Database
from bootvol.testing.backends import noise
from bootvol.testing.web import BadWeb
from tests.clocks import WrongClock
from tests.daemons import reactor
from tests.processes import Process, process
from tests.servers import Server, serve
from tests.waiting import block_until

MIB = 1024 * 1024
CONTENT = noise(12 * MIB + 333)
RATE = 5 * MIB
HOUR = 3600
CONFIG = """
[imports]
buffer_kib = 256
checkpoint_mib = 1
bandwidth_mib = 5

[[sources]]
name = "web"
plugin = "http"
allow = ["{url}images/"]
networks = ["127.0.0.0/8", "::1/128"]
stall = 1.0
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


def progress(daemon: Process, volume: int) -> Any:
    """Return the progress of a volume's import."""
    return daemon.get(f"hp-bootable-volumes/{volume}/import")["import"]


def content_of(daemon: Process) -> bytes:
    """Return the first bytes of the only volume."""
    (file,) = daemon.files()
    with file.open("rb") as volume:
        return volume.read(len(CONTENT))


@pytest.mark.parametrize("leap", [-HOUR, 2 * HOUR])
@ensureDeferred
async def test_an_import_neither_stands_still_nor_ends(
    tmp_path: Path, server: Server, leap: int
) -> None:
    def run() -> None:
        clock = WrongClock(tmp_path)
        with process(tmp_path, CONFIG.format(url=server.url), clock.env) as daemon:
            slow = daemon.create(f"{server.url}images/slow")
            block_until(lambda: progress(daemon, slow)["bytesDone"] > MIB)
            clock.set(leap)
            assert daemon.until_settled() == ["available"]
            assert progress(daemon, slow)["attempt"] == 1
            assert content_of(daemon) == CONTENT
            daemon.delete(slow)
            assert daemon.until_settled() == []
            # A broken connection is retried after a pause; a silent source times out.
            stalled = daemon.create(f"{server.url}images/stall")
            block_until(lambda: progress(daemon, stalled)["bytesDone"])
            clock.set(-leap)
            assert daemon.until_settled() == ["available"]
            assert content_of(daemon) == CONTENT

    await deferToThread(run)


@pytest.mark.parametrize("leap", [-HOUR, HOUR])
@ensureDeferred
async def test_a_clock_that_is_set_takes_nothing_from_anybody(
    tmp_path: Path, new_postgresql: Callable[[], str], server: Server, web: BadWeb, leap: int
) -> None:
    url = new_postgresql()
    Database(make_url(url).set(drivername="postgresql+psycopg"), reactor).upgrade()

    def run() -> None:
        clock = WrongClock(tmp_path)
        more = CONFIG.format(url=server.url)
        state = f'url = "{url}"\ndirectory = "state-{{}}"'
        with ExitStack() as stack:

            def daemon(name: str, env: dict[str, str] | None = None) -> Process:
                made = Process(tmp_path, more, env, state=state.format(name), name=f"-{name}")
                stack.callback(made.stop)
                return made

            first = daemon("a", clock.env)
            number = first.create(f"{server.url}images/slow")
            block_until(lambda: progress(first, number)["bytesDone"] > MIB)
            clock.set(leap)
            second = daemon("b")
            # The second daemon has looked for work several times by then.
            assert second.until_settled() == ["available"]
            assert progress(second, number)["attempt"] == 1
            assert web.requests["slow"] == [None]
            assert content_of(second) == CONTENT
            # A daemon started with a wrong clock reports the difference.
            first.stop()
            first.start()
            told = f"{abs(leap)} s {'behind' if leap < 0 else 'ahead of'} the database's"
            block_until(lambda: told in first.log.read_text())
            assert "of this machine is" not in second.log.read_text()

    await deferToThread(run)
