"""Lists of digests beside images: finding, reporting, and signatures."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from pytest_twisted import ensureDeferred
from twisted.web.resource import Resource
from twisted.web.server import Request

from bootvol.errors import ConfigurationError, SourceFailed, SourceRefused
from bootvol.testing.backends import noise
from bootvol.testing.sources import CALLER
from bootvol.threads import Threads
from bootvol_plugins.http.options import HttpOptions
from bootvol_plugins.http.source import HttpSource
from tests.daemons import reactor
from tests.servers import Server, serve

CONTENT = noise(100_000)
RIGHT = hashlib.sha256(CONTENT).hexdigest()
LINE = f"{RIGHT}  a.img\n".encode()


class Files(Resource):
    """Serves files.

    :ivar files: the files, by name.
    :ivar codes: other statuses, by requested name.
    :ivar asked: the requested lists.
    """

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.files = {"a.img": CONTENT}
        self.codes: dict[str, int] = {}
        self.asked: list[str] = []

    def render_GET(self, request: Request) -> bytes:
        """Answer."""
        name = request.path.decode().rpartition("/")[2]
        if not name.endswith((".img", ".qcow2", ".iso", ".xz")):
            self.asked.append(name)
        if name in self.codes or name not in self.files:
            request.setResponseCode(self.codes.get(name, 404))
            return b"<html>no</html>"
        return self.files[name]


@pytest.fixture
def files() -> Files:
    """The resource of the server."""
    return Files()


@pytest.fixture
def server(files: Files) -> Iterator[Server]:
    """The running server."""
    with serve(files) as server:
        yield server


@attrs.frozen
class Keys:
    """Keys of one person.

    :ivar home: GnuPG's folder.
    """

    home: Path

    def gpg(self, *words: str, given: bytes = b"") -> bytes:
        """Run gpg."""
        command = ["gpg", "--homedir", str(self.home), "--batch", "--quiet", "--yes", *words]
        return subprocess.run(command, input=given, check=True, capture_output=True).stdout

    def public(self, name: str, *how: str) -> str:
        """Return the path of a keyring with the public key."""
        path = self.home / name
        path.write_bytes(self.gpg("--export", *how))
        return str(path)


def _keys(home: Path) -> Keys:
    home.mkdir(mode=0o700)
    keys = Keys(home)
    keys.gpg("--passphrase", "", "--quick-generate-key", "images@example.org", "ed25519", "sign")
    return keys


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for keys. The fixture ends GnuPG's processes afterwards."""
    folder = tmp_path_factory.mktemp("gpg")
    yield folder
    for home in folder.iterdir():
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=True)


@pytest.fixture(scope="module")
def keys(folder: Path) -> Keys:
    """The keys of the publisher."""
    return _keys(folder / "publisher")


@pytest.fixture(scope="module")
def others(folder: Path) -> Keys:
    """The keys of another person."""
    return _keys(folder / "other")


def source(server: Server, threads: Threads, **more: Any) -> HttpSource:
    """Return a source for the server."""
    networks = ["127.0.0.0/8", "::1/128"]
    options = HttpOptions(allow=[server.url], networks=networks, **more)
    return HttpSource("web", options, reactor, threads)


async def stated(web: HttpSource, server: Server, name: str = "a.img") -> str | None:
    """Return the digest found for an image."""
    digest = (await web.find(CALLER, f"{server.url}41/{name}?token=x")).digest
    return None if digest is None else digest.value


@pytest.mark.parametrize(
    ("name", "image", "text"),
    [
        ("SHA256SUMS", "a.img", LINE),
        ("SHA512SUMS", "a.img", f"{hashlib.sha512(CONTENT).hexdigest()}  a.img\n".encode()),
        ("CHECKSUM", "a.img", f"SHA256 (a.img) = {RIGHT}\n".encode()),
        ("CHECKSUM.SHA256", "a.img", f"SHA256 (a.img) = {RIGHT}\n".encode()),
        ("sha256sum.txt", "a.img", LINE),
        ("sha256sums", "a.img", f"{RIGHT} *a.img\n".encode()),
        ("a.img.sha256", "a.img", f"{RIGHT}\n".encode()),
        ("a.img-CHECKSUM", "a.img", LINE),
        ("a.img.md5", "a.img", f"{hashlib.md5(CONTENT).hexdigest()}\n".encode()),
        (
            "Fedora-Cloud-41-1.4-x86_64-CHECKSUM",
            "Fedora-Cloud-Base-Generic-41-1.4.x86_64.qcow2",
            f"SHA256 (Fedora-Cloud-Base-Generic-41-1.4.x86_64.qcow2) = {RIGHT}\n".encode(),
        ),
        ("Fedora-Cloud-40-1.14-x86_64-CHECKSUM", "Fedora-Cloud-Base.x86_64-40-1.14.qcow2", b""),
        ("CHECKSUM.SHA256-FreeBSD-14.1-RELEASE-amd64", "FreeBSD-14.1-RELEASE-amd64-disc1.iso", b""),
        (
            "CHECKSUM.SHA256-FreeBSD-14.1-RELEASE-arm64-aarch64",
            "FreeBSD-14.1-RELEASE-arm64-aarch64-mini-memstick.img.xz",
            b"",
        ),
        ("CHECKSUM.SHA256", "FreeBSD-14.1-RELEASE-amd64-BASIC-CLOUDINIT.ufs.qcow2.xz", b""),
        ("SHA256", "install76.img", b""),
        ("SHA512", "NetBSD-10.0-amd64.iso", b""),
        ("sha256sums.txt", "archlinux-2026.01.01-x86_64.iso", b""),
        (
            "CentOS-Stream-GenericCloud-9-latest.x86_64.qcow2.SHA256SUM",
            "CentOS-Stream-GenericCloud-9-latest.x86_64.qcow2",
            f"SHA256 (CentOS-Stream-GenericCloud-9-2026.x86_64.qcow2) = {RIGHT}\n".encode(),
        ),
        (
            "flatcar_production_openstack_image.img.DIGESTS",
            "flatcar_production_openstack_image.img",
            b"",
        ),
        ("Cloud.qcow2.sha256", "Cloud.qcow2", f"{RIGHT}  Cloud-Build13.5.qcow2\n".encode()),
    ],
)
@ensureDeferred
async def test_the_usual_names(
    files: Files, server: Server, threads: Threads, name: str, image: str, text: bytes
) -> None:
    files.files[image] = CONTENT
    files.files[name] = text or f"SHA256 ({image}) = {RIGHT}\n".encode()
    web = source(server, threads)
    found = await stated(web, server, image)
    assert found is not None
    assert found in text.decode() + RIGHT
    # The known form of the name is requested first.
    files.asked.clear()
    assert await stated(web, server, image) == found
    assert files.asked == [name]


@ensureDeferred
async def test_the_lists_of_another_image(files: Files, server: Server, threads: Threads) -> None:
    """A directory's form of names is remembered, not the name itself."""
    files.files |= {"b.img": CONTENT, "a.img.sha256": LINE, "b.img.sha256": LINE}
    web = source(server, threads)
    assert await stated(web, server) == RIGHT
    files.asked.clear()
    assert await stated(web, server, "b.img") == RIGHT
    assert files.asked == ["b.img.sha256"]


@ensureDeferred
async def test_no_list_at_all(files: Files, server: Server, threads: Threads) -> None:
    web = source(server, threads)
    assert await stated(web, server) is None
    assert len(files.asked) == len(set(files.asked)) <= 13
    files.asked.clear()
    # The result is remembered for a while.
    assert await stated(web, server) is None
    assert files.asked == []
    assert await stated(source(server, threads, checksums="none"), server) is None
    assert files.asked == []


@pytest.mark.parametrize("code", [401, 403, 500, 503])
@ensureDeferred
async def test_lists_that_are_looked_for_may_fail(
    files: Files, server: Server, threads: Threads, code: int
) -> None:
    files.codes["SHA256SUMS"] = code
    files.files["SHA512SUMS"] = LINE
    found = await stated(source(server, threads), server)
    # After a server error, bootvol sends no more requests.
    assert found == (RIGHT if code < 500 else None)


@ensureDeferred
async def test_a_list_that_lists_something_else_is_passed_over(
    files: Files, server: Server, threads: Threads
) -> None:
    files.files["SHA256SUMS"] = f"{'0' * 64}  b.img\n".encode()
    files.files["a.img.sha256"] = LINE
    assert await stated(source(server, threads), server) == RIGHT


@pytest.mark.parametrize(
    ("files_there", "code", "message"),
    [
        ({}, None, "The list of digests SHA256SUMS is missing beside the image on localhost."),
        ({"SHA256SUMS": b""}, None, "SHA256SUMS on localhost does not list the image."),
        ({"SHA256SUMS": LINE + LINE.replace(b"a", b"b", 1)}, None, "does not list|several digests"),
        ({}, 403, "localhost answers 403."),
    ],
)
@ensureDeferred
async def test_what_is_said_of_a_list_that_has_to_be_there(
    files: Files,
    server: Server,
    threads: Threads,
    files_there: dict[str, bytes],
    code: int | None,
    message: str,
) -> None:
    files.files |= files_there
    if code:
        files.codes["SHA256SUMS"] = code
    files.files["a.img.sha256"] = LINE
    with pytest.raises(SourceRefused, match=message):
        await stated(source(server, threads, checksums="SHA256SUMS"), server)
    assert files.asked == ["SHA256SUMS"]


@ensureDeferred
async def test_a_list_that_does_not_come(files: Files, server: Server, threads: Threads) -> None:
    files.codes["SHA256SUMS"] = 503
    with pytest.raises(SourceFailed, match="answers 503"):
        await stated(source(server, threads, checksums="SHA256SUMS"), server)


@ensureDeferred
async def test_a_list_with_the_images_name(files: Files, server: Server, threads: Threads) -> None:
    files.files["a.img.sums"] = LINE
    assert await stated(source(server, threads, checksums="{image}.sums"), server) == RIGHT


@pytest.mark.parametrize("ending", [".gpg", ".sign", ".asc", ".sig", "clear"])
@pytest.mark.parametrize("checksums", ["auto", "SHA256SUMS"])
@ensureDeferred
async def test_a_signed_list(
    files: Files, server: Server, threads: Threads, keys: Keys, ending: str, checksums: str
) -> None:
    if ending == "clear":
        files.files["SHA256SUMS"] = keys.gpg("--clearsign", given=LINE)
    else:
        files.files["SHA256SUMS"] = LINE
        armour = ["--armor"] if ending == ".asc" else []
        signature = keys.gpg(*armour, "--detach-sign", given=LINE)
        files.files[f"SHA256SUMS{ending}"] = signature
    for keyring in (keys.public("keys.gpg"), keys.public("keys.asc", "--armor")):
        web = source(server, threads, checksums=checksums, keyring=keyring)
        assert await stated(web, server) == RIGHT


@pytest.mark.parametrize("checksums", ["auto", "SHA256SUMS"])
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("unsigned", "which states the digest of a.img, is not signed"),
        ("other key", "no key of the operator's keyring has signed it"),
        ("changed", "its signature is wrong"),
        ("changed beside", "its signature is wrong"),
        ("unsigned part", "(does not list the image|lists a.img)"),
        ("nonsense", "no key of the operator's keyring has signed it"),
    ],
)
@ensureDeferred
async def test_a_list_that_cannot_be_trusted(
    files: Files,
    server: Server,
    threads: Threads,
    keys: Keys,
    others: Keys,
    checksums: str,
    how: str,
    message: str,
) -> None:
    files.files["SHA256SUMS"] = LINE
    if how == "other key":
        files.files["SHA256SUMS"] = others.gpg("--clearsign", given=LINE)
    elif how == "changed":
        signed = keys.gpg("--clearsign", given=LINE.replace(b"a.img", b"b.img"))
        files.files["SHA256SUMS"] = signed.replace(b"b.img", b"a.img")
    elif how == "changed beside":
        signature = keys.gpg("--detach-sign", given=LINE + b"#")
        files.files["SHA256SUMS.gpg"] = signature
    elif how == "unsigned part":
        files.files["SHA256SUMS"] = keys.gpg("--clearsign", given=b"nothing\n") + LINE
    elif how == "nonsense":
        files.files["SHA256SUMS.sign"] = b"\0nonsense"
    web = source(server, threads, checksums=checksums, keyring=keys.public("keys.gpg"))
    with pytest.raises(SourceRefused, match=message):
        await stated(web, server)


@ensureDeferred
async def test_what_is_signed_must_name_the_image(
    files: Files, server: Server, threads: Threads, keys: Keys
) -> None:
    """Otherwise a list could belong to another image, under this one's name."""
    signed = keys.gpg("--clearsign", given=f"{RIGHT}  b.img\n".encode())
    files.files["a.img.sha256"] = signed
    web = source(server, threads, keyring=keys.public("keys.gpg"))
    with pytest.raises(SourceRefused, match=r"lists a\.img"):
        await stated(web, server)
    # A missing list is requested again: the list may appear later.
    files.files["SHA256SUMS"] = keys.gpg("--clearsign", given=LINE)
    assert await stated(web, server) == RIGHT


@ensureDeferred
async def test_of_several_signatures_one_is_enough(
    files: Files, server: Server, threads: Threads, keys: Keys, others: Keys
) -> None:
    """Debian's lists have several signatures of changing keys: nobody has all keys."""
    files.files["SHA256SUMS"] = LINE
    both = [each.gpg("--detach-sign", given=LINE) for each in (others, keys)]
    files.files["SHA256SUMS.sign"] = b"".join(both)
    web = source(server, threads, keyring=keys.public("keys.gpg"))
    assert await stated(web, server) == RIGHT


@pytest.mark.parametrize("checksums", ["auto", "SHA256SUMS"])
@pytest.mark.parametrize("how", ["killed", "gone", "no disk"])
@ensureDeferred
async def test_what_the_machine_lacks_says_nothing_of_a_signature(
    files: Files,
    server: Server,
    threads: Threads,
    keys: Keys,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    checksums: str,
    how: str,
) -> None:
    files.files["SHA256SUMS"] = keys.gpg("--clearsign", given=LINE)
    gpgv = tmp_path / "gpgv"
    gpgv.write_text("#!/bin/sh\nkill -9 $$\n")
    gpgv.chmod(0o755)
    keyring = keys.public("keys.gpg")
    with monkeypatch.context() as patch:
        if how != "no disk":
            patch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        web = source(server, threads, checksums=checksums, keyring=keyring)
    if how == "gone":
        gpgv.unlink()
    elif how == "no disk":
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    with pytest.raises(SourceFailed, match="cannot be verified for now"):
        await stated(web, server)


def test_a_keyring_that_is_of_no_use(server: Server, threads: Threads, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        source(server, threads, keyring=str(tmp_path / "none"))
    (tmp_path / "empty").touch()
    with pytest.raises(ConfigurationError, match="the file contains no key"):
        source(server, threads, keyring=str(tmp_path / "empty"))
