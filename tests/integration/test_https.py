"""The API over TLS, with a certificate and a key from files."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import pytest_twisted
import requests
import trustme
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs

from bootvol import settings
from bootvol.daemon import Daemon
from bootvol.errors import ConfigurationError
from bootvol.testing.backends import noise
from tests.daemons import TENANT, configuration, reactor
from tests.processes import cli
from tests.servers import free_port
from tests.waiting import LIMIT


@attrs.frozen
class Https:
    """A daemon with TLS, and the authority of its certificate."""

    port: int
    authority: Path
    daemon: Daemon

    async def handshake(self, context: ssl.SSLContext) -> tuple[str, str]:
        """Connect; return the version of TLS and the cipher."""

        def connect() -> tuple[str, str]:
            with (
                socket.create_connection(("127.0.0.1", self.port), 30) as plain,
                context.wrap_socket(plain, server_hostname="localhost") as encrypted,
            ):
                cipher = encrypted.cipher()
                assert cipher is not None
                return encrypted.version() or "", cipher[0]

        found: tuple[str, str] = await deferToThread(connect)
        return found

    def context(self) -> ssl.SSLContext:
        """Return a client's context that trusts the authority and accepts the oldest versions."""
        context = ssl.create_default_context(cafile=self.authority)
        context.set_ciphers("ALL:@SECLEVEL=0")
        return context


def listening(folder: Path, port: int) -> Path:
    """Write a configuration with TLS; return its path."""
    (folder / "images").mkdir(exist_ok=True)
    description = f"ssl:{port}:interface=127.0.0.1:privateKey={folder}/key:certKey={folder}/cert"
    text = configuration(port).replace(f"tcp:{port}:interface=127.0.0.1", description)
    path = folder / "twistd.conf"
    path.write_text(text)
    return path


def certified(folder: Path) -> None:
    """Make the key and the certificate of a daemon, an RSA key, as old clients need."""
    authority = trustme.CA(key_type=trustme.KeyType.RSA)
    authority.cert_pem.write_to_path(folder / "ca")
    issued = authority.issue_cert("localhost", key_type=trustme.KeyType.RSA)
    issued.private_key_pem.write_to_path(folder / "key")
    (folder / "key").chmod(0o600)
    issued.cert_chain_pems[0].write_to_path(folder / "cert")


@pytest_twisted.async_yield_fixture
async def https(tmp_path: Path) -> AsyncIterator[Https]:
    """A daemon with TLS."""
    certified(tmp_path)
    port = free_port()
    daemon = Daemon(settings.load(listening(tmp_path, port)), reactor)
    daemon.startService()
    yield Https(port, tmp_path / "ca", daemon)
    await daemon.stopService()


@ensureDeferred
async def test_a_key_that_others_may_read(https: Https, tmp_path: Path) -> None:
    """A key that others may read is refused at SIGHUP, and the other settings are still applied.

    Break: `src/bootvol/reload.py`: `raise ConfigurationError(str(mistake))` -> `pass`
    """
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    issued.private_key_pem.write_to_path(tmp_path / "key")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert")
    (tmp_path / "key").chmod(0o644)
    config = tmp_path / "twistd.conf"
    config.write_text(config.read_text().replace('"ann"', '"anna"'))
    with capturedLogs() as logged:
        await https.daemon.reload()
    (told,) = [str(each["error"]) for each in logged if "error" in each]
    assert f"Run: chmod 600 {tmp_path / 'key'}" in told
    await https.handshake(https.context())
    url = f"https://localhost:{https.port}/v1.1/{TENANT}/os-volumes"

    def codes() -> list[int]:
        told: dict[str, Any] = {"verify": str(https.authority), "timeout": LIMIT}
        tokens = ("ann", "anna")
        answers = [requests.get(url, headers={"X-Auth-Token": each}, **told) for each in tokens]
        return [each.status_code for each in answers]

    assert await deferToThread(codes) == [401, 200]
    (tmp_path / "key").chmod(0o600)
    await https.daemon.reload()
    with pytest.raises(ssl.SSLError, match="certificate verify failed"):
        await https.handshake(https.context())


@ensureDeferred
async def test_images_by_tls(tmp_path: Path) -> None:
    """Uploads and downloads of many pieces, and an upload that is refused within its body."""
    certified(tmp_path)
    port = free_port()
    config = listening(tmp_path, port)
    text = config.read_text()
    writable = 'directory = "images"\nwritable = true\nquota_gib = 0.03125\n'
    config.write_text(text.replace('directory = "images"\n', writable))
    daemon = Daemon(settings.load(config), reactor)
    daemon.startService()
    content = noise(20 * 1024 * 1024 + 7)

    def call() -> list[object]:
        url = f"https://localhost:{port}/image/v2/images"
        told: dict[str, Any] = {"verify": str(tmp_path / "ca"), "timeout": LIMIT}
        found: list[object] = []
        with requests.Session() as session:
            session.headers["X-Auth-Token"] = "ann"
            body = {"disk_format": "raw", "container_format": "bare"}
            for _ in range(2):
                image = session.post(url, json=body, **told).json()["id"]
                octets = {"Content-Type": "application/octet-stream"}
                sent = session.put(f"{url}/{image}/file", content, headers=octets, **told)
                found.append(sent.status_code)
                got = session.get(f"{url}/{image}/file", **told)
                found += [got.status_code, got.content == content]
        return found

    try:
        assert await deferToThread(call) == [204, 200, True, 413, 204, False]
    finally:
        await daemon.stopService()


@ensureDeferred
async def test_calls_by_tls(https: Https) -> None:
    def call() -> Any:
        url = f"https://localhost:{https.port}"
        told: dict[str, Any] = {"verify": str(https.authority), "timeout": LIMIT}
        versions = requests.get(f"{url}/", **told).json()["versions"]
        volumes = requests.get(
            f"{url}/v1.1/{TENANT}/os-volumes", headers={"X-Auth-Token": "ann"}, **told
        )
        return url, versions, volumes.json()

    url, versions, volumes = await deferToThread(call)
    assert versions[0]["links"][0]["href"] == f"{url}/v1.1/"
    assert volumes == {"volumes": []}


@ensureDeferred
async def test_the_command_line_by_tls(https: Https) -> None:
    env = {
        "BOOTVOL_ENDPOINT": f"https://localhost:{https.port}/v1.1/{TENANT}",
        "BOOTVOL_TOKEN": "ann",
    }
    trusting = {**env, "OS_CACERT": str(https.authority)}
    listed = await deferToThread(cli, "volume", "list", "--json", env=trusting)
    assert (listed.returncode, listed.stdout) == (0, "[]\n"), listed.stderr
    refused = await deferToThread(cli, "volume", "list", env=env)
    assert refused.returncode == 5
    assert "certificate verify failed" in refused.stderr


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@ensureDeferred
async def test_modern_tls(https: Https, version: ssl.TLSVersion) -> None:
    context = https.context()
    context.minimum_version = context.maximum_version = version
    assert (await https.handshake(context))[0] == version.name.replace("_", ".")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@ensureDeferred
async def test_old_tls_is_refused(https: Https, version: ssl.TLSVersion) -> None:
    """Versions of TLS before 1.2 are refused.

    Twisted and OpenSSL refuse old versions, too; so the break removes their refusal as well.

    Break: `src/bootvol/api/tls.py`: `context.set_min_proto_version(SSL.TLS1_2_VERSION)` ->
    `context = SSL.Context(SSL.TLS_METHOD); context.use_privatekey(factory.privateKey);
    context.use_certificate(factory.certificate); context.set_cipher_list(b"ALL:@SECLEVEL=0");
    context.set_min_proto_version(SSL.TLS1_VERSION)`.
    """
    context = https.context()
    context.minimum_version = context.maximum_version = version
    with pytest.raises(ssl.SSLError, match=r"(?i)alert.protocol.version"):
        await https.handshake(context)


@pytest.mark.parametrize("cipher", ["AES128-SHA", "AES256-GCM-SHA384", "ECDHE-RSA-AES128-SHA"])
@ensureDeferred
async def test_old_ciphers_are_refused(https: Https, cipher: str) -> None:
    """Ciphers without forward secrecy, and broken ciphers, are refused.

    Break: `src/bootvol/api/tls.py`: `b"ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL"` -> `b"ALL:!aNULL"`.
    """
    context = https.context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(f"{cipher}:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError, match=r"(?i)handshake.failure"):
        await https.handshake(context)


@ensureDeferred
async def test_who_does_not_know_the_authority_does_not_connect(https: Https) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        await https.handshake(ssl.create_default_context())


@ensureDeferred
async def test_nothing_is_served_in_clear(https: Https) -> None:
    """A plain request to a TLS endpoint gets no answer.

    Break: `src/bootvol/api/tls.py`: `self._reactor.listenTCP(port, encrypting, **more)` ->
    `self._reactor.listenTCP(port, factory, **more)`.
    """

    def call() -> None:
        requests.get(f"http://127.0.0.1:{https.port}/", timeout=LIMIT)

    with pytest.raises(requests.ConnectionError):
        await deferToThread(call)


@pytest.mark.parametrize("missing", ["key", "cert"])
def test_a_missing_file_is_said_before_anything_is_started(tmp_path: Path, missing: str) -> None:
    issued = trustme.CA().issue_cert("localhost")
    issued.private_key_pem.write_to_path(tmp_path / "key")
    (tmp_path / "key").chmod(0o600)
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert")
    (tmp_path / missing).unlink()
    with pytest.raises(ConfigurationError, match=r"api\.listen.*No such file"):
        settings.load(listening(tmp_path, free_port()))


@ensureDeferred
async def test_a_renewed_certificate_is_served_without_a_restart(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca")

    def issue() -> bytes:
        issued = authority.issue_cert("localhost")
        issued.private_key_pem.write_to_path(tmp_path / "key")
        (tmp_path / "key").chmod(0o600)
        issued.cert_chain_pems[0].write_to_path(tmp_path / "cert")
        return ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode())

    first = issue()
    port = free_port()
    daemon = Daemon(settings.load(listening(tmp_path, port)), reactor)
    daemon.startService()

    def served() -> bytes:
        context = ssl.create_default_context(cafile=tmp_path / "ca")
        with (
            socket.create_connection(("127.0.0.1", port), 30) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as encrypted,
        ):
            return encrypted.getpeercert(binary_form=True) or b""

    def asked(token: str) -> int:
        return requests.get(
            f"https://localhost:{port}/v1.1/{TENANT}/os-volumes",
            headers={"X-Auth-Token": token},
            verify=str(tmp_path / "ca"),
            timeout=LIMIT,
        ).status_code

    try:
        assert await deferToThread(served) == first
        second = issue()
        await daemon.reload()
        assert await deferToThread(served) == second
        # An unreadable certificate changes nothing.
        (tmp_path / "cert").write_text("half a certificate")
        await daemon.reload()
        assert await deferToThread(served) == second
        # Nor does such a certificate keep removed tokens valid.
        config = tmp_path / "twistd.conf"
        config.write_text(config.read_text().replace('token = "ann"', 'token = "carol"'))
        await daemon.reload()
        answers = [await deferToThread(asked, token) for token in ("carol", "ann")]
        assert answers == [200, 401]
    finally:
        await daemon.stopService()
