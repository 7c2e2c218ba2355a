"""Images through a forward proxy, with and without TLS, and through wrong proxies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from pytest_twisted import ensureDeferred
from twisted.internet.ssl import KeyPair, PrivateCertificate

from bootvol.testing.backends import noise
from bootvol.testing.web import BadWeb
from tests.daemons import Running, pause, reactor
from tests.proxies import ForwardProxy, forward_proxy
from tests.servers import Server, free_port, serve
from tests.waiting import until

CONTENT = noise(3 * 1024 * 1024 + 5)
#: Only the proxy can resolve this name.
NAME = "origin.test"
CONFIG = """
[imports]
buffer_kib = 64
checkpoint_mib = 1
retries = 0

[[sources]]
name = "web"
plugin = "http"
allow = ["http://{name}:{port}/images/", "https://{name}:{port}/images/"]
proxy = "{proxy}"
checksums = "none"
ca = "ca.pem"
"""


@pytest.fixture
def proxy() -> Iterator[ForwardProxy]:
    """A running proxy."""
    with forward_proxy({NAME: "127.0.0.1", "other.test": "127.0.0.1"}) as proxy:
        yield proxy


@pytest.fixture
def web() -> BadWeb:
    """The resource of the origin."""
    return BadWeb(CONTENT, reactor, 1024 * 1024)


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    """The authority trusted by the daemon."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return authority


@pytest.fixture
def plain(web: BadWeb, authority: trustme.CA) -> Iterator[Server]:
    """An origin without TLS."""
    with serve(web) as server:
        yield server


@pytest.fixture
def secure(web: BadWeb, authority: trustme.CA) -> Iterator[Server]:
    """An origin with TLS."""
    issued = authority.issue_cert(NAME)
    pem = issued.private_key_pem.bytes() + issued.cert_chain_pems[0].bytes()
    certificate = PrivateCertificate.loadPEM(pem)
    assert isinstance(certificate.privateKey, KeyPair)
    with serve(web, certificate.options()) as server:
        yield server


@pytest.fixture(params=["plain", "secure"])
def origin(request: pytest.FixtureRequest) -> Server:
    """Either origin."""
    server = request.getfixturevalue(request.param)
    assert isinstance(server, Server)
    return server


def daemon(folder: Path, server: Server, proxy: str, more: str = "", name: str = NAME) -> Running:
    """Return a daemon that reaches an origin through a proxy."""
    return Running(folder, CONFIG.format(name=name, port=server.port, proxy=proxy) + more)


def url(server: Server, image: str, name: str = NAME) -> str:
    """Return the URL of an image."""
    return f"{server.scheme}://{name}:{server.port}/images/{image}"


async def outcome(running: Running, image: str) -> tuple[str, str]:
    """Request a volume; return the code and message of the outcome, immediate or later."""
    wanted = {"volume": {"size": 1, "imageRef": image}}
    answer = await running.call("POST", "os-volumes", wanted)
    if answer.status != 200:
        (fault,) = answer.json.values()
        codes = {400: "source-refused", 503: "source-failed"}
        return codes[answer.status], fault["message"]
    number = answer.json["volume"]["id"]
    assert await running.until(number, "available", "error") == "error"
    error = (await running.progress(number))["error"]
    return error["code"], error["message"]


@ensureDeferred
async def test_an_image(tmp_path: Path, origin: Server, proxy: ForwardProxy) -> None:
    running = daemon(tmp_path, origin, proxy.url)
    try:
        number = await running.create(url(origin, "good"))
        assert await running.until(number, "available", "error") == "available"
        (file,) = running.files()
        with file.open("rb") as volume:
            assert volume.read(len(CONTENT) + 1) == CONTENT + b"\0"
        if origin.scheme == "http":
            asked = [f"{method} {url(origin, 'good')} HTTP/1.1" for method in ("GET", "GET")]
        else:
            asked = [f"CONNECT {NAME}:{origin.port} HTTP/1.1"] * 2
        assert proxy.requests == asked
    finally:
        await running.stop()


@ensureDeferred
async def test_goes_on_where_it_broke_off(
    tmp_path: Path, web: BadWeb, origin: Server, proxy: ForwardProxy
) -> None:
    running = daemon(tmp_path, origin, proxy.url)
    try:
        number = await running.create(url(origin, "drop"))
        assert await running.until(number, "available", "error") == "available"
        assert len(web.requests["drop"]) > 1
        assert all(web.requests["drop"][1:]), "the rest is asked for, not the whole"
    finally:
        await running.stop()


@ensureDeferred
async def test_the_list_of_allowed_urls_holds_at_every_hop(
    tmp_path: Path, origin: Server, proxy: ForwardProxy
) -> None:
    """A redirect to a URL outside ``allow`` is not followed.

    Break: `plugins/bootvol_plugins/http/requests.py`: `if not lies_under(target, self._allow):` ->
    `if target is None:`.
    """
    running = daemon(tmp_path, origin, proxy.url)
    try:
        code, message = await outcome(running, url(origin, "elsewhere"))
        assert (code, message) == (
            "source-refused",
            f"{NAME} redirects to a URL that the operator does not allow.",
        )
        assert not any("127.0.0.1" in line for line in proxy.requests)
    finally:
        await running.stop()


@ensureDeferred
async def test_an_origin_that_is_not_trusted(
    tmp_path: Path, secure: Server, proxy: ForwardProxy
) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
    running = daemon(tmp_path, secure, proxy.url)
    try:
        code, message = await outcome(running, url(secure, "good"))
        assert code == "source-failed"
        assert f"{NAME} cannot be reached through the proxy: " in message
        assert "an authority that is not trusted" in message
    finally:
        await running.stop()


@ensureDeferred
async def test_an_origin_whose_certificate_is_anothers(
    tmp_path: Path, web: BadWeb, secure: Server, proxy: ForwardProxy
) -> None:
    """The proxy may lead anywhere: the certificate must name the requested host."""
    running = daemon(tmp_path, secure, proxy.url, name="other.test")
    try:
        code, _message = await outcome(running, url(secure, "good", "other.test"))
        assert code == "source-failed"
        assert proxy.requests == [f"CONNECT other.test:{secure.port} HTTP/1.1"]
        assert web.requests == {}
    finally:
        await running.stop()


@pytest.mark.parametrize(
    ("answer", "code", "plainly", "tunnelled"),
    [
        (
            b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
            "source-refused",
            f"{NAME} answers 403.",
            "The proxy answers 403.",
        ),
        (
            b"HTTP/1.1 407 Who?\r\nContent-Length: 0\r\n\r\n",
            "source-refused",
            "The proxy wants credentials, and has none from here.",
            "The proxy wants credentials, and has none from here.",
        ),
        (
            b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3\r\n\r\nbad",
            "source-failed",
            f"{NAME} answers 502.",
            "The proxy answers 502.",
        ),
        (
            b"220 mail.example ESMTP\r\n",
            "source-failed",
            f"{NAME} cannot be reached through the proxy: ",
            "The proxy's answer is not HTTP.",
        ),
        (
            b"HTTP/1.1 2",
            "source-failed",
            f"{NAME} cannot be reached through the proxy: ",
            "The proxy closed the connection without an answer.",
        ),
    ],
)
@ensureDeferred
async def test_a_proxy_that_does_not_serve(
    tmp_path: Path,
    origin: Server,
    proxy: ForwardProxy,
    answer: bytes,
    code: str,
    plainly: str,
    tunnelled: str,
) -> None:
    proxy.answer = answer
    running = daemon(tmp_path, origin, proxy.url)
    try:
        found, message = await outcome(running, url(origin, "good"))
        assert found == code
        assert message.startswith(plainly if origin.scheme == "http" else tunnelled)
        assert origin.accepted == []
    finally:
        await running.stop()


@ensureDeferred
async def test_a_proxy_that_hangs(tmp_path: Path, origin: Server, proxy: ForwardProxy) -> None:
    proxy.answer = b""
    running = daemon(tmp_path, origin, proxy.url, "timeout = 0.25\n")
    try:
        assert await outcome(running, url(origin, "good")) == (
            "source-failed",
            "The server did not answer through the proxy within 0.25 seconds.",
        )
    finally:
        await running.stop()


@ensureDeferred
async def test_a_proxy_that_is_not_there(tmp_path: Path, origin: Server) -> None:
    running = daemon(tmp_path, origin, f"http://127.0.0.1:{free_port()}")
    try:
        code, message = await outcome(running, url(origin, "good"))
        assert code == "source-failed"
        assert message.startswith("The proxy cannot be reached: Connection was refused")
    finally:
        await running.stop()


@ensureDeferred
async def test_an_import_that_is_cancelled_leaves_no_connection(
    tmp_path: Path, origin: Server, proxy: ForwardProxy
) -> None:
    running = daemon(tmp_path, origin, proxy.url)
    try:
        number = await running.create(url(origin, "slow"))
        while not (await running.progress(number))["bytesDone"]:
            await pause(0.05)
        assert origin.connections
        await running.call("DELETE", f"os-volumes/{number}")
        await running.until(number, "gone")
        await until(lambda: not origin.connections)
    finally:
        await running.stop()
