"""Host names that curl accepts, though IDNA does not."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from pytest_twisted import ensureDeferred
from twisted.internet.ssl import KeyPair, PrivateCertificate
from twisted.logger import capturedLogs, formatEvent

from bootvol.errors import SourceFailed
from bootvol.jail import Jail
from bootvol.testing.backends import noise
from bootvol.testing.sources import CALLER, read_all
from bootvol.testing.web import BadWeb
from bootvol.threads import Threads
from bootvol_plugins.http.options import HttpOptions
from bootvol_plugins.http.source import HttpSource
from tests.daemons import reactor
from tests.names import known
from tests.proxies import ForwardProxy, forward_proxy
from tests.servers import Server, serve

CONTENT = noise(100_000)
NAMES = ["my_mirror.mirrors.test", "r3---sn-a.mirrors.test", "_a-.mirrors.test"]


@pytest.fixture
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """A server. Its certificate, if any, is for all names below the parameter."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    options = None
    if request.param:
        issued = authority.issue_cert(f"*.{request.param}")
        pem = issued.private_key_pem.bytes() + issued.cert_chain_pems[0].bytes()
        certificate = PrivateCertificate.loadPEM(pem)
        assert isinstance(certificate.privateKey, KeyPair)
        options = certificate.options()
    with serve(BadWeb(CONTENT, reactor), options) as server:
        yield server


@pytest.fixture
def proxy() -> Iterator[ForwardProxy]:
    """A running proxy; only the proxy can resolve the host."""
    with forward_proxy({NAMES[0]: "127.0.0.1"}) as proxy:
        yield proxy


async def fetched(
    server: Server, folder: Path, threads: Threads, name: str, proxy: str | None = None
) -> bytes:
    """Return the bytes fetched from a host."""
    options = HttpOptions(
        allow=[f"{server.scheme}://{name}:{server.port}/"],
        networks=["127.0.0.0/8"],
        ca=folder / "ca.pem",
        checksums="none",
        proxy=proxy,
    )
    web = HttpSource("web", options, reactor, threads, Jail())
    image = await web.find(CALLER, f"{server.scheme}://{name.upper()}:{server.port}/good")
    return await read_all(await web.open(image), 65536)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("server", ["", "mirrors.test"], indirect=True)
@ensureDeferred
async def test_an_image(server: Server, tmp_path: Path, threads: Threads, name: str) -> None:
    with known(reactor, {name: [["127.0.0.1"]]}) as names:
        assert await fetched(server, tmp_path, threads, name) == CONTENT
    assert set(names.asked) == {name}


@pytest.mark.parametrize("server", ["", "mirrors.test"], indirect=True)
@ensureDeferred
async def test_through_a_proxy(
    server: Server, tmp_path: Path, threads: Threads, proxy: ForwardProxy
) -> None:
    through = f"http://my_proxy:{proxy.url.rpartition(':')[2]}"
    with known(reactor, {"my_proxy": [["127.0.0.1"]]}):
        assert await fetched(server, tmp_path, threads, NAMES[0], through) == CONTENT


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("server", ["other.test"], indirect=True)
@ensureDeferred
async def test_a_certificate_of_others(
    server: Server, tmp_path: Path, threads: Threads, name: str
) -> None:
    with (
        known(reactor, {name: [["127.0.0.1"]]}),
        pytest.raises(SourceFailed, match="certificate is for other names"),
    ):
        await fetched(server, tmp_path, threads, name)


@pytest.fixture
def refused(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """A server with a certificate of some days, and whether the authority is trusted."""
    begins, ends, trusted = request.param
    authority, other = trustme.CA(), trustme.CA()
    (authority if trusted else other).cert_pem.write_to_path(tmp_path / "ca.pem")
    now = datetime.now(UTC)
    issued = authority.issue_cert(
        "plain.test",
        not_before=now + timedelta(days=begins),
        not_after=now + timedelta(days=ends),
    )
    pem = issued.private_key_pem.bytes() + issued.cert_chain_pems[0].bytes()
    with serve(BadWeb(CONTENT, reactor), PrivateCertificate.loadPEM(pem).options()) as server:
        yield server


@pytest.mark.parametrize(
    ("refused", "name", "fault", "remedy"),
    [
        ((-9, -2, True), "plain.test", "its certificate has expired", "clocks of both machines"),
        ((2, 9, True), "plain.test", "its certificate is not valid yet", "clocks of both machines"),
        ((-9, 9, False), "plain.test", "an authority that is not trusted", "in `ca`"),
        ((-9, 9, True), "other.test", "its certificate is for other names", "name in the URL"),
    ],
    indirect=["refused"],
)
@ensureDeferred
async def test_a_certificate_that_is_refused(
    refused: Server, tmp_path: Path, threads: Threads, name: str, fault: str, remedy: str
) -> None:
    """The tenant learns what is wrong with a certificate, and the operator the remedy.

    Break: `plugins/bootvol_plugins/http/certificates.py`: `if ok:` -> `if True:`
    """
    with (
        known(reactor, {name: [["127.0.0.1"]]}),
        capturedLogs() as logged,
        pytest.raises(SourceFailed, match=fault),
    ):
        await fetched(refused, tmp_path, threads, name)
    lines = [text for each in logged if fault in (text := formatEvent(each) or "")]
    assert lines
    assert all(remedy in each for each in lines)


@pytest.mark.parametrize("server", [""], indirect=True)
@ensureDeferred
async def test_a_name_that_nobody_knows(server: Server, tmp_path: Path, threads: Threads) -> None:
    with pytest.raises(SourceFailed, match=r"^no_such\.invalid .* no address"):
        await fetched(server, tmp_path, threads, "no_such.invalid")
