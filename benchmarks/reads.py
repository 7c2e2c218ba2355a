"""Measures the most frequent requests: lists of volumes, and single volumes."""

from __future__ import annotations

import http.client
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from uuid import uuid4

from sqlalchemy import create_engine, insert, make_url
from tests.daemons import TENANT, reactor
from tests.postgresql import create_database, server
from tests.processes import Process, process
from tests.servers import free_port

from bootvol.store.database import Database
from bootvol.store.schema import volumes

#: Requests in a row to one server before the other server's turn; and the number of turns.
_BATCH: Final = 50
_TURNS: Final = 8
_MANY: Final = 10_000

_CONFIG: Final = """
[quota]
volumes = -1
gigabytes = -1
"""

#: A plain Klein handler: the least time that an answer of Klein takes.
_KLEIN: Final = """\
import sys
from klein import Klein

app = Klein()
content = open(sys.argv[2], "rb").read()

@app.route("/<path:rest>")
def shown(request, rest):
    request.setHeader(b"Content-Type", b"application/json; charset=UTF-8")
    return content

app.run("127.0.0.1", int(sys.argv[1]), open("/dev/null", "w"))
"""

#: Lists all volumes, page by page, until the process is killed.
_LISTER: Final = """\
import http.client, itertools, sys

port, path, pages = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
connection = http.client.HTTPConnection("127.0.0.1", port)
for page in itertools.cycle(range(pages)):
    connection.request("GET", f"{path}?offset={page * 1000}", headers={"X-Auth-Token": "ann"})
    connection.getresponse().read()
"""


_BESIDE: Final = "beside a plain Klein handler"
#: The names of the figures, and their targets.
TARGETS: Final = {
    f"GET of 1,000 volumes, {_BESIDE}": "3",
    f"GET of one volume, {_BESIDE}": "3",
    f"GET of 1,000 volumes by the Block Storage API, {_BESIDE}": "3",
    f"GET of one volume by the Block Storage API, {_BESIDE}": "3",
    "p99 of GET while 10,000 volumes are listed over and over": "50 ms",
    "the same while volumes are created, too": "-",
    f"GET of 1,000 volumes, PostgreSQL, {_BESIDE}": "3",
    f"GET of one volume, PostgreSQL, {_BESIDE}": "3",
    f"GET of 1,000 volumes by the Block Storage API, PostgreSQL, {_BESIDE}": "3",
    f"GET of one volume by the Block Storage API, PostgreSQL, {_BESIDE}": "3",
}


def figures(folder: Path) -> dict[str, float]:
    """Return the figures by their names."""
    with process(folder, _CONFIG) as daemon:
        database = f"sqlite:///{folder / 'bootvol.db'}"
        beside = _reads(daemon, database)
        _insert(daemon, database, _MANY - 1000)
        quiet = _latency(daemon, lambda number: None)
        # A write comes with each tenth request, and makes the response cache useless.
        busy = _latency(
            daemon,
            lambda number: (
                number % 10 or daemon.call("POST", "os-volumes", {"volume": {"size": 1}})
            ),
        )
    other = folder / "other"
    other.mkdir()
    with server() as databases:
        made = create_database(databases, "reads")
        database = made.replace("postgresql:", "postgresql+psycopg:", 1)
        Database(make_url(database), reactor).upgrade()
        daemon = Process(other, _CONFIG, state=f'url = "{made}"\ndirectory = "."')
        try:
            shared = _reads(daemon, database)
        finally:
            daemon.stop()
    return dict(zip(TARGETS, (*beside, quiet, busy, *shared), strict=True))


def _reads(daemon: Process, database: str) -> list[float]:
    """Return the times of GET of 1,000 volumes and of one, in both APIs, beside plain Klein."""
    _insert(daemon, database, 1000)
    older, newer = f"/v1.1/{TENANT}", f"/volume/v3/{TENANT}"
    one = json.loads(_Client(daemon.port, f"{newer}/volumes?limit=1").get())["volumes"][0]
    paths = (
        f"{older}/os-volumes/detail",
        f"{older}/os-volumes/1",
        f"{newer}/volumes/detail",
        f"{newer}/volumes/{one['id']}",
    )
    return [_beside_klein(daemon, path) for path in paths]


def _insert(daemon: Process, database: str, count: int) -> None:
    """Insert volumes into a daemon's database. The daemon is stopped meanwhile."""
    daemon.stop()
    row = {
        "tenant": TENANT,
        "user": "ann",
        "size_gib": 10,
        "status": "available",
        "created_at": datetime.now(UTC),
        "availability_zone": "nova",
        "backend": "local",
        "display_name": "a volume",
        "display_description": "as it is in a benchmark",
        "metadata": {"key": "value"},
    }
    engine = create_engine(database)
    with engine.begin() as connection:
        rows = [
            {**row, "name": f"volume-{os.urandom(8).hex()}", "uuid": str(uuid4())}
            for _ in range(count)
        ]
        connection.execute(insert(volumes), rows)
    engine.dispose()
    daemon.start()


class _Client:
    """A persistent connection that requests one path."""

    def __init__(self, port: int, path: str) -> None:
        self._path = path
        self._connection = http.client.HTTPConnection("127.0.0.1", port)

    def get(self) -> bytes:
        """Return the body of the answer."""
        self._connection.request("GET", self._path, headers={"X-Auth-Token": "ann"})
        return self._connection.getresponse().read()

    def close(self) -> None:
        """Close the connection. The next request opens another one."""
        self._connection.close()

    def took(self) -> float:
        """Return the seconds that one answer takes."""
        began = time.monotonic()
        self.get()
        return time.monotonic() - began


def _beside_klein(daemon: Process, path: str) -> float:
    """Return the median time of a GET, divided by plain Klein's for the same bytes."""
    ours = _Client(daemon.port, path)
    file = daemon.folder / "answer"
    file.write_bytes(ours.get())
    with _running(_KLEIN, str(port := free_port()), str(file)):
        theirs = _Client(port, path)
        _until_answered(theirs)
        mine, other = [], []
        for _ in range(_TURNS):
            mine += [ours.took() for _ in range(_BATCH)]
            other += [theirs.took() for _ in range(_BATCH)]
    return statistics.median(mine) / statistics.median(other)


def _latency(daemon: Process, beside: Callable[[int], object]) -> float:
    """Return the p99 of GET of one volume in milliseconds, while another client lists all."""
    client = _Client(daemon.port, f"/v1.1/{TENANT}/os-volumes/1")
    path = f"/v1.1/{TENANT}/os-volumes/detail"
    taken = []
    with _running(_LISTER, str(daemon.port), path, str(_MANY // 1000)):
        time.sleep(0.5)
        for number in range(1000):
            beside(number)
            taken.append(client.took())
            time.sleep(0.005)
    return 1000 * statistics.quantiles(taken, n=100)[98]


@contextmanager
def _running(program: str, *arguments: str) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", program, *arguments])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _until_answered(client: _Client) -> None:
    for _ in range(200):
        try:
            client.get()
        except ConnectionRefusedError:
            client.close()
            time.sleep(0.05)
        else:
            return
    raise SystemExit("the server does not answer")
