"""Limits and the import queue, as shown to callers."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from bootvol.testing.backends import noise
from tests.daemons import OTHER_TENANT, Running, pause
from tests.servers import only_looks, serve
from tests.waiting import until

CONTENT = noise(300_000)


class Mirror(Resource):
    """A server that sends each image at the test's command.

    :ivar waiting: requests, by the requested names.
    :ivar busy: names answered with "come again later".
    :ivar sent: number of bytes sent of an image, by name.
    """

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.url = ""
        self.waiting: dict[str, Request] = {}
        self.busy: set[str] = set()
        self.sent: Counter[str] = Counter()

    def render_HEAD(self, request: Request) -> bytes:
        """State that the image exists."""
        return b""

    def render_GET(self, request: Request) -> bytes | int:
        """Hold the request."""
        if only_looks(request):
            return self.render_HEAD(request)
        name = request.path.decode().rpartition("/")[2]
        if name in self.busy:
            request.setResponseCode(503)
            request.setHeader("Retry-After", "300")
            return b""
        self.waiting[name] = request
        return NOT_DONE_YET

    def send(self, name: str) -> None:
        """Answer the request for an image with the rest of its bytes."""
        request = self.waiting.pop(name)
        request.write(CONTENT[self.sent.pop(name, 0) :])
        request.finish()

    def drip(self, name: str) -> None:
        """Send some more bytes of an image, but never the end."""
        first = self.sent[name]
        last = min(first + 16384, len(CONTENT) - 1)
        self.waiting[name].write(CONTENT[first:last])
        self.sent[name] = last

    async def asked(self, *names: str) -> None:
        """Wait for requests for these images; no other request may come."""
        await until(lambda: set(names) <= set(self.waiting))
        assert set(self.waiting) == set(names)


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    """A server on loopback."""
    mirror = Mirror()
    with serve(mirror) as server:
        mirror.url = server.url
        yield mirror


@asynccontextmanager
async def daemon(
    folder: Path, mirror: Mirror, imports: str, source: str = "", backend: str = ""
) -> AsyncIterator[Running]:
    """Run a daemon with the mirror as a source, and with TOML for three of its tables."""
    web = f"""
[[sources]]
name = "web"
plugin = "http"
allow = ["{mirror.url}"]
networks = ["127.0.0.0/8", "::1/128"]
checksums = "none"
{source}
"""
    running = Running(folder, f"{web}\n[imports]\n{imports}\n", backend=backend)
    (running.images / "here").write_bytes(CONTENT)
    try:
        yield running
    finally:
        await running.stop()


async def positions(running: Running, *numbers: int) -> list[int | None]:
    """Return the positions of imports."""
    return [(await running.progress(number))["position"] for number in numbers]


@ensureDeferred
async def test_positions_go_down(tmp_path: Path, mirror: Mirror) -> None:
    async with daemon(tmp_path, mirror, "concurrent = 1") as running:
        first = await running.create(f"{mirror.url}1")
        await mirror.asked("1")
        second, third = [await running.create(f"{mirror.url}{n}") for n in (2, 3)]
        plain = await running.create()
        assert await positions(running, first, second, third) == [None, 1, 2]
        mirror.send("1")
        await mirror.asked("2")
        assert await positions(running, first, second, third) == [None, None, 1]
        assert (await running.progress(third))["phase"] == "queued"
        answer = await running.call("GET", f"hp-bootable-volumes/{plain}/import")
        assert answer.status == 404
        # A deletion leaves the queue, too.
        assert (await running.call("DELETE", f"os-volumes/{third}")).status == 202
        await running.until(third, "gone")
        mirror.send("2")
        assert await running.until(second, "available", "error") == "available"


@ensureDeferred
async def test_tenants_take_turns(tmp_path: Path, mirror: Mirror) -> None:
    """Break: `src/bootvol/store/import_queue.py`: `volumes.c.tenant == tenant,` ->
    `volumes.c.id > 0,`
    """
    async with daemon(tmp_path, mirror, "concurrent = 1") as running:
        await running.create(f"{mirror.url}1")
        await mirror.asked("1")
        mine = [await running.create(f"{mirror.url}{n}") for n in (2, 3)]
        wanted = {"volume": {"size": 1, "imageRef": f"{mirror.url}other"}}
        path = f"/v1.1/{OTHER_TENANT}"
        made = await running.request("POST", f"{path}/os-volumes", wanted, token="bob")
        shown = await running.request(
            "GET",
            f"{path}/hp-bootable-volumes/{made.json['volume']['id']}/import",
            token="bob",
        )
        assert shown.json["import"]["position"] == 1
        # A position counts only the tenant's own imports.
        assert await positions(running, *mine) == [1, 2]
        for name, following in (("1", "other"), ("other", "2"), ("2", "3")):
            mirror.send(name)
            await mirror.asked(following)


async def create_for_another(running: Running, image: str) -> int:
    """Create a volume of another tenant; return the id."""
    wanted = {"volume": {"size": 1, "imageRef": image}}
    path = f"/v1.1/{OTHER_TENANT}/os-volumes"
    made = await running.request("POST", path, wanted, token="bob")
    assert made.status == 200, made
    number: int = made.json["volume"]["id"]
    return number


@ensureDeferred
async def test_who_pauses_gives_the_place_back(tmp_path: Path, mirror: Mirror) -> None:
    """An import that waits for a busy source delays neither its own tenant nor others.

    Break: `src/bootvol/worker/retries.py`: `await progress.lane_place.rest(sleep(clock, pause))` -> `await sleep(clock, pause)`
    """  # noqa: E501
    mirror.busy.add("busy")
    async with daemon(tmp_path, mirror, "concurrent = 4", "concurrent = 1") as running:
        busy = await running.create(f"{mirror.url}busy")
        await create_for_another(running, f"{mirror.url}other")
        await mirror.asked("other")
        await until(lambda: running.progress(busy), lambda found: found["phase"] == "retrying")
        mirror.send("other")
        own = await running.create(f"{mirror.url}own")
        await mirror.asked("own")
        mirror.send("own")
        assert await running.until(own, "available", "error") == "available"
        # The pause lasts five minutes.
        assert (await running.progress(busy))["attempt"] == 1


@ensureDeferred
async def test_slow_images_of_one_tenant_keep_no_other_out(tmp_path: Path, mirror: Mirror) -> None:
    """One of the imports gives way, and later resumes.

    Break: `src/bootvol/worker/shares.py`: `return more >= 2 or (` -> `return (`
    """
    async with daemon(tmp_path, mirror, "concurrent = 2") as running:
        mine = [await running.create(f"{mirror.url}{n}") for n in (1, 2)]
        await mirror.asked("1", "2")
        await create_for_another(running, f"{mirror.url}other")

        def dripped() -> bool:
            for name in "12":
                mirror.drip(name)
            return "other" in mirror.waiting

        await until(dripped)
        await mirror.asked("1", "2", "other")

        async def phases() -> list[str]:
            return [(await running.progress(number))["phase"] for number in mine]

        assert sorted(await until(phases, lambda found: "queued" in found)) == [
            "downloading",
            "queued",
        ]
        for name in ("other", "1", "2"):
            mirror.send(name)
        for number in mine:
            assert await running.until(number, "available", "error") == "available"
            assert (await running.progress(number))["attempt"] == 1


@ensureDeferred
async def test_a_source_at_its_limit_holds_up_no_other(tmp_path: Path, mirror: Mirror) -> None:
    async with daemon(tmp_path, mirror, "concurrent = 4", "concurrent = 1") as running:
        first, second = [await running.create(f"{mirror.url}{n}") for n in (1, 2)]
        await mirror.asked("1")
        other = await running.create("here")
        assert await running.until(other, "available", "error") == "available"
        assert await positions(running, second) == [1]
        await mirror.asked("1")
        mirror.send("1")
        await mirror.asked("2")
        assert await running.until(first, "available", "error") == "available"
        assert await positions(running, second) == [None]


@ensureDeferred
async def test_a_backend_at_its_limit(tmp_path: Path, mirror: Mirror) -> None:
    async with daemon(tmp_path, mirror, "concurrent = 4", backend="concurrent = 1") as running:
        first = await running.create(f"{mirror.url}1")
        await mirror.asked("1")
        second = await running.create("here")
        plain = await running.create()
        assert await running.until(plain, "available", "error") == "available"
        assert await positions(running, first, second) == [None, 1]
        mirror.send("1")
        assert await running.until(second, "available", "error") == "available"


@pytest.mark.parametrize("table", ["", "[imports]\n"])
@ensureDeferred
async def test_little_bandwidth(tmp_path: Path, table: str) -> None:
    # The text follows the configuration's last table, the source. At this rate, the image takes
    # minutes.
    running = Running(tmp_path, f"{table}bandwidth_mib = 0.001\n")
    try:
        (running.images / "here").write_bytes(CONTENT)
        number = await running.create("here")
        await running.until(number, "downloading")
        await pause(0.5)
        assert await running.status(number) == "downloading"
        assert (await running.call("DELETE", f"os-volumes/{number}")).status == 202
        await running.until(number, "gone")
    finally:
        await running.stop()
