"""Images over https: trust, and connections left when an import ends early."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from pytest_twisted import ensureDeferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import KeyPair, PrivateCertificate

from bootvol.testing.backends import noise
from bootvol.testing.web import BadWeb
from tests.daemons import Running, pause, reactor
from tests.servers import Server, serve
from tests.waiting import until

CONTENT = noise(8 * 1024 * 1024 + 5)
CONFIG = """
[imports]
retries = 0

[[sources]]
name = "web"
plugin = "http"
allow = ["{url}"]
networks = ["127.0.0.0/8", "::1/128"]
ca = "ca.pem"
"""


class WithoutTls(Protocol):
    """A server that answers anything in plain HTTP."""

    def dataReceived(self, data: bytes) -> None:
        """See :meth:`twisted.internet.interfaces.IProtocol.dataReceived`."""
        assert self.transport is not None
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        self.transport.loseConnection()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server with an authority known only to the configuration."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "right.pem")
    trustme.CA().cert_pem.write_to_path(tmp_path / "wrong.pem")
    issued = authority.issue_cert("localhost")
    pem = issued.private_key_pem.bytes() + issued.cert_chain_pems[0].bytes()
    certificate = PrivateCertificate.loadPEM(pem)
    assert isinstance(certificate.privateKey, KeyPair)
    with serve(BadWeb(CONTENT, reactor, 1024 * 1024), certificate.options()) as server:
        yield server


def daemon(folder: Path, server: Server, authority: str) -> Running:
    """Return a daemon that trusts an authority."""
    (folder / authority).rename(folder / "ca.pem")
    return Running(folder, CONFIG.format(url=server.url))


@ensureDeferred
async def test_a_private_authority(tmp_path: Path, server: Server) -> None:
    running = daemon(tmp_path, server, "right.pem")
    try:
        number = await running.create(f"{server.url}good")
        assert await running.until(number, "available", "error") == "available"
        (file,) = running.files()
        with file.open("rb") as volume:
            assert volume.read(len(CONTENT)) == CONTENT
    finally:
        await running.stop()


@ensureDeferred
async def test_an_authority_that_is_not_trusted(tmp_path: Path, server: Server) -> None:
    """No image comes from a server with an untrusted authority.

    Break: `plugins/bootvol_plugins/http/client.py`: `trusted = None if authorities is None else
    _authorities(authorities)` -> `trusted = _authorities(authorities.with_name('right.pem'))`.
    """
    running = daemon(tmp_path, server, "wrong.pem")
    try:
        wanted = {"volume": {"size": 1, "imageRef": f"{server.url}good"}}
        answer = await running.call("POST", "os-volumes", wanted)
        assert answer.status == 503
        assert "authority that is not trusted" in answer.json["serviceUnavailable"]["message"]
    finally:
        await running.stop()


@ensureDeferred
async def test_a_server_without_tls(tmp_path: Path) -> None:
    """An https URL of a server without TLS fails at once, with an advice.

    Break: `plugins/bootvol_plugins/http/client.py`: `if "wrong version number" in texts:` ->
    `if False:`.
    """
    listening = reactor.listenTCP(0, Factory.forProtocol(WithoutTls), interface="127.0.0.1")
    url = f"https://localhost:{listening.getHost().port}/"
    running = Running(tmp_path, CONFIG.format(url=url).replace('ca = "ca.pem"', ""))
    try:
        wanted = {"volume": {"size": 1, "imageRef": f"{url}good"}}
        answer = await running.call("POST", "os-volumes", wanted)
        assert answer.status == 503
        assert answer.json["serviceUnavailable"]["message"] == (
            "localhost cannot be reached: it does not speak TLS at this port; the URL may have to"
            " begin with http://."
        )
    finally:
        await running.stop()
        await listening.stopListening()


@ensureDeferred
async def test_an_import_that_is_cancelled_leaves_no_connection(
    tmp_path: Path, server: Server
) -> None:
    running = daemon(tmp_path, server, "right.pem")
    try:
        number = await running.create(f"{server.url}slow")
        while not (await running.progress(number))["bytesDone"]:
            await pause(0.05)
        assert server.connections
        await running.call("DELETE", f"os-volumes/{number}")
        await running.until(number, "gone")
        await until(lambda: not server.connections)
    finally:
        await running.stop()
