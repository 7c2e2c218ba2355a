"""Addresses that the http source connects to, over real sockets: each connection resolves the name
again.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.error import CannotListenError
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from bootvol.testing.backends import noise
from bootvol.testing.web import BadWeb
from tests.daemons import Running, reactor
from tests.names import known
from tests.servers import Server, serve

CONTENT = noise(1024 * 1024 + 5)
REFUSED = "leads to an address that the operator does not allow."
#: The source may connect to OUTSIDE, and to nobody at INSIDE.
OUTSIDE, INSIDE = "127.0.0.1", "127.0.0.2"


class Redirecting(Resource):
    """Serves images, and redirects GETs below ``away``.

    :ivar target: the URL of the redirect.
    """

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.web = BadWeb(CONTENT, reactor)
        self.target = ""

    def render_HEAD(self, request: Request) -> bytes:
        """State that the image exists."""
        return self.web.render_HEAD(request)

    def render_GET(self, request: Request) -> bytes | int:
        """Send the image, or redirect."""
        if b"/away/" not in request.path:
            return self.web.render_GET(request)
        request.setResponseCode(302)
        request.setHeader(b"location", self.target.encode())
        return b""


@pytest.fixture
def root() -> Redirecting:
    """The resource of the server outside."""
    return Redirecting()


@pytest.fixture
def outside(root: Redirecting) -> Iterator[Server]:
    """A server that the source may reach."""
    with serve(root, interface=OUTSIDE) as server:
        yield server


@pytest.fixture
def inside(outside: Server) -> Iterator[Server]:
    """A server on the same port that the source may not reach."""
    with serve(BadWeb(CONTENT, reactor), interface=INSIDE, port=outside.port) as server:
        yield server


def config(allow: list[str], *more: str) -> str:
    """Return the configuration of a source."""
    source = ["[imports]", "retries = 2", "[[sources]]", 'name = "web"', 'plugin = "http"']
    return "\n".join([*source, f"allow = {allow}", *more, ""])


async def refusal(running: Running, url: str) -> str:
    """Request a volume with an image refused at once; return the message."""
    answer = await running.call("POST", "os-volumes", {"volume": {"size": 1, "imageRef": url}})
    assert answer.status == 400
    return str(answer.json["badRequest"]["message"])


async def failure(running: Running, url: str) -> Any:
    """Request a volume with an import that fails; return the error."""
    number = await running.create(url)
    assert await running.until(number, "available", "error") == "error"
    return (await running.progress(number))["error"]


@ensureDeferred
async def test_localhost_by_name(tmp_path: Path, outside: Server) -> None:
    running = Running(tmp_path, config([outside.url]))
    try:
        assert await refusal(running, f"{outside.url}good") == f"localhost {REFUSED}"
        assert outside.accepted == []
    finally:
        await running.stop()


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f.0.0.1"])
@ensureDeferred
async def test_addresses_that_do_not_look_so(tmp_path: Path, outside: Server, host: str) -> None:
    url = f"http://{host}:{outside.port}/"
    running = Running(tmp_path, config([url, f"http://127.0.0.1:{outside.port}/"]))
    try:
        assert await refusal(running, f"{url}good") == f"{host} {REFUSED}"
        assert outside.accepted == []
    finally:
        await running.stop()


@ensureDeferred
async def test_an_address_that_the_operator_names(tmp_path: Path, outside: Server) -> None:
    url = f"http://127.0.0.1:{outside.port}/"
    running = Running(tmp_path, config([url, outside.url]))
    try:
        number = await running.create(f"{url}good")
        assert await running.until(number, "available", "error") == "available"
        # The address is allowed only as written in ``allow``.
        assert REFUSED in await refusal(running, f"{outside.url}good")
    finally:
        await running.stop()


@ensureDeferred
async def test_an_address_of_ipv6_that_the_operator_names(tmp_path: Path) -> None:
    try:
        listening = reactor.listenTCP(0, Site(BadWeb(CONTENT, reactor)), interface="::1")
    except CannotListenError:
        pytest.skip("there is no IPv6 on this machine")
    url = f"http://[::1]:{listening.getHost().port}/"
    running = Running(tmp_path, config([url]))
    try:
        number = await running.create(f"{url}good")
        assert await running.until(number, "available", "error") == "available"
    finally:
        await running.stop()
        await listening.stopListening()


@ensureDeferred
async def test_a_redirect_to_a_name_that_leads_inside(
    tmp_path: Path, root: Redirecting, outside: Server, inside: Server
) -> None:
    """A redirect to a name with an inside address is refused without a connection.

    Break: `plugins/bootvol_plugins/http/addresses.py`: `if self._policy.allows(text, host):` -> `if
    text:`.
    """
    port = outside.port
    root.target = f"http://inside.test:{port}/good"
    allow = [f"http://{name}.test:{port}/" for name in ("outside", "inside")]
    answers = {"outside.test": [[OUTSIDE]], "inside.test": [[INSIDE]]}
    with known(reactor, answers) as names:
        running = Running(tmp_path, config(allow, f'networks = ["{OUTSIDE}/32"]'))
        try:
            message = await refusal(running, f"http://outside.test:{port}/away/good")
            assert message == f"inside.test {REFUSED}"
            assert names.asked == ["outside.test", "inside.test"]
            assert len(outside.accepted) == 1
            assert inside.accepted == []
        finally:
            await running.stop()


@ensureDeferred
async def test_a_name_that_turns_inside(tmp_path: Path, outside: Server, inside: Server) -> None:
    """The image is found outside; when bootvol opens it, the name leads to another host.

    Break: `plugins/bootvol_plugins/http/addresses.py`: `if self._policy.allows(text, host):` -> `if
    text:`.
    """
    url = f"http://turns.test:{outside.port}/"
    with known(reactor, {"turns.test": [[OUTSIDE], [INSIDE]]}):
        running = Running(tmp_path, config([url], f'networks = ["{OUTSIDE}/32"]'))
        try:
            error = await failure(running, f"{url}good")
            assert error["code"] == "source-refused"
            assert (len(outside.accepted), inside.accepted) == (1, [])
        finally:
            await running.stop()


@ensureDeferred
async def test_the_list_of_digests_is_asked_for_no_otherwise(
    tmp_path: Path, outside: Server, inside: Server
) -> None:
    url = f"http://turns.test:{outside.port}/"
    more = (f'networks = ["{OUTSIDE}/32"]', 'checksums = "SHA256SUMS"')
    with known(reactor, {"turns.test": [[OUTSIDE], [INSIDE]]}):
        running = Running(tmp_path, config([url], *more))
        try:
            assert await refusal(running, f"{url}good") == f"turns.test {REFUSED}"
            assert (len(outside.accepted), inside.accepted) == (1, [])
        finally:
            await running.stop()


@ensureDeferred
async def test_what_is_refused_is_passed_over(
    tmp_path: Path, outside: Server, inside: Server
) -> None:
    url = f"http://both.test:{outside.port}/"
    with known(reactor, {"both.test": [[INSIDE, OUTSIDE]]}):
        running = Running(tmp_path, config([url], f'networks = ["{OUTSIDE}/32"]'))
        try:
            number = await running.create(f"{url}good")
            assert await running.until(number, "available", "error") == "available"
            assert inside.accepted == []
        finally:
            await running.stop()
