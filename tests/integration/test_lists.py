"""Lists of digests beside images: finding, reporting, and signatures."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.python.threadable import isInIOThread
from twisted.web.resource import Resource
from twisted.web.server import Request
from twisted.web.util import redirectTo

from bootvol.errors import ConfigurationError, SourceFailed, SourceRefused
from bootvol.jail import Jail
from bootvol.jail.program import Lacking
from bootvol.testing.backends import noise
from bootvol.testing.sources import CALLER
from bootvol.threads import Threads
from bootvol_plugins.http import lists
from bootvol_plugins.http.checksums import find_digest, is_list
from bootvol_plugins.http.options import HttpOptions
from bootvol_plugins.http.source import HttpSource
from tests.daemons import reactor
from tests.jails import ANOTHER, PYTHON, ROOT, attacks
from tests.servers import Server, serve

CONTENT = noise(100_000)
RIGHT = hashlib.sha256(CONTENT).hexdigest()
LINE = f"{RIGHT}  a.img\n".encode()


class Files(Resource):
    """Serves files.

    :ivar files: the files, by name.
    :ivar codes: other statuses, by requested name.
    :ivar asked: the requested lists.
    :ivar elsewhere: the target of redirects for all lists; empty for none.
    """

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.files = {"a.img": CONTENT}
        self.codes: dict[str, int] = {}
        self.asked: list[str] = []
        self.elsewhere = ""

    def render_GET(self, request: Request) -> bytes:
        """Answer."""
        name = request.path.decode().rpartition("/")[2]
        if not name.endswith((".img", ".qcow2", ".iso", ".xz")):
            self.asked.append(name)
            if self.elsewhere:
                return redirectTo(self.elsewhere.encode("ascii"), request)
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
    return HttpSource("web", options, reactor, threads, Jail())


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of programs that come before the system's, readable for other users."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        yield Path(folder)


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
        ("SHA1SUMS", "a.img", f"{hashlib.sha1(CONTENT).hexdigest()}  a.img\n".encode()),
        ("SHA256SUM", "a.img", LINE),
        ("a.img.SHA256SUM", "a.img", f"SHA256 (a.img) = {RIGHT}\n".encode()),
        ("a.img.sha256sum", "a.img", f"sha256:{RIGHT}\n".encode()),
        ("a.img.sha512sum", "a.img", f"{hashlib.sha512(CONTENT).hexdigest()}\n".encode()),
        ("Armbian_24.5.img.xz.sha", "Armbian_24.5.img.xz", b""),
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
    assert len(files.asked) == len(set(files.asked)) <= 25
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
async def test_lists_that_the_server_refuses_are_asked_for_once(
    files: Files, server: Server, threads: Threads
) -> None:
    """S3 answers 403 for a file that does not exist."""
    web = source(server, threads)
    assert await stated(web, server) is None
    files.codes = dict.fromkeys(files.asked, 403)
    web = source(server, threads)
    files.asked.clear()
    assert await stated(web, server) is None
    assert sorted(files.asked) == sorted(files.codes)
    assert await stated(web, server) is None
    assert len(files.asked) == len(files.codes)


@ensureDeferred
async def test_a_list_that_the_server_refuses_for_a_while(
    files: Files, server: Server, threads: Threads
) -> None:
    files.files["a.img.sha256"] = LINE
    web = source(server, threads)
    assert await stated(web, server) == RIGHT
    files.codes = {"a.img.sha256": 403}
    assert await stated(web, server) is None
    files.codes = {}
    assert await stated(web, server) == RIGHT


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "states no digest"),
        (b"see the wiki\n", "states no digest"),
        (b"\x1f\x8b\x08\0" + noise(99), "states no digest"),
        (LINE + LINE.replace(b"a", b"b", 1), "states several digests"),
        (b"\n<!DOCTYPE html><p>Not here.", None),
        (f"{'0' * 64}  b.img\n".encode(), None),
    ],
)
@ensureDeferred
async def test_what_the_log_says_of_a_list_that_was_looked_for(
    files: Files, server: Server, threads: Threads, text: bytes, said: str | None
) -> None:
    files.files |= {"SHA256SUMS": text, "a.img.sha256": LINE}
    with capturedLogs() as logs:
        assert await stated(source(server, threads), server) == RIGHT
    told = [formatEvent(each) for each in logs if each["log_level"] is LogLevel.warn]
    assert len(told) == (said is not None)
    assert not said or ("/SHA256SUMS" in told[0] and said in told[0])


class Texts(dict[str, bytes]):
    """Files with every name."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> bytes:
        return b"see the wiki\n"


@ensureDeferred
async def test_a_server_with_a_text_for_every_name_gets_few_lines(
    files: Files, server: Server, threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bootvol.sparing.MOST", 3)
    files.files = Texts(files.files)
    with capturedLogs() as logs:
        assert await stated(source(server, threads), server) is None
    assert len(files.asked) > 10
    assert len([each for each in logs if each["log_level"] is LogLevel.warn]) == 3


@ensureDeferred
async def test_a_server_that_redirects_every_list_gets_few_lines(
    files: Files, server: Server, threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server may redirect the request for each usual name of a list.

    Break: `plugins/bootvol_plugins/http/requests.py`: `if self._lines.admit():` -> `if True:`.
    """
    monkeypatch.setattr("bootvol.sparing.MOST", 3)
    files.elsewhere = "http://elsewhere.example/"
    with capturedLogs() as logs:
        assert await stated(source(server, threads), server) is None
    assert len(files.asked) > 10
    told = [each for each in logs if "redirects to" in (each["log_format"] or "")]
    assert len(told) == 3


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
        (
            {"SHA256SUMS": LINE.replace(b"a.img", b"b.img")},
            None,
            "SHA256SUMS on localhost does not list the image.",
        ),
        ({"SHA256SUMS": b""}, None, "SHA256SUMS on localhost states no digest in a form that"),
        (
            {"SHA256SUMS": f"BLAKE3 (a.img) = {RIGHT}\n".encode()},
            None,
            "SHA256SUMS on localhost states no digest in a form that bootvol reads.",
        ),
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
async def test_lists_are_read_beside_the_reactor(
    files: Files, server: Server, threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hostile list takes a second of a processor, and other callers do not wait.

    Break: `plugins/bootvol_plugins/http/lists.py`: `if await self._threads.run(is_list, told):` ->
    `if is_list(told):`.
    Break: `plugins/bootvol_plugins/http/lists.py`: `await self._threads.run(find)` -> `find()`.
    """
    files.files["SHA256SUMS"] = LINE
    used: list[bool] = []

    def noted(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: object, **kwargs: object) -> object:
            used.append(isInIOThread())
            return call(*args, **kwargs)

        return run

    for call in (is_list, find_digest):
        monkeypatch.setattr(lists, call.__name__, noted(call))
    assert await stated(source(server, threads), server) == RIGHT
    assert used == [False, False]


@ensureDeferred
async def test_the_lists_of_a_server_are_read_one_after_the_other(
    files: Files, server: Server, threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hostile server does not take all threads, which imports need, too.

    Break: `plugins/bootvol_plugins/http/lists.py`: `async with self._turns.turn(url.host):` -> `if
    True:`.
    """
    files.files["SHA256SUMS"] = LINE
    running, most = 0, 0

    def find(*args: Any, **kwargs: Any) -> object:
        nonlocal running, most
        running += 1
        most = max(most, running)
        time.sleep(0.05)
        running -= 1
        return find_digest(*args, **kwargs)

    monkeypatch.setattr(lists, "find_digest", find)
    web = source(server, threads)
    found = await gatherResults([Deferred.fromCoroutine(stated(web, server)) for _ in range(5)])
    assert found == [RIGHT] * 5
    assert most == 1


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
        ("unsigned part", "(states no digest in a form|lists a.img)"),
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
    """Otherwise a list could belong to another image, under this one's name.

    Break: `plugins/bootvol_plugins/http/lists.py`: `IMAGE in pattern and bare` -> `IMAGE in
    pattern`.
    Break: `plugins/bootvol_plugins/http/lists.py`: `bare = self._keyring is None` -> `bare = True`.
    """
    web = source(server, threads, keyring=keys.public("keys.gpg"))
    for text in (f"{RIGHT}  b.img\n", f"{RIGHT}\n"):
        files.files["a.img.sha256"] = keys.gpg("--clearsign", given=text.encode())
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
@pytest.mark.parametrize("how", ["killed", "gone", "no memory", "not confined"])
@ensureDeferred
async def test_what_the_machine_lacks_says_nothing_of_a_signature(
    files: Files,
    server: Server,
    threads: Threads,
    keys: Keys,
    programs: Path,
    monkeypatch: pytest.MonkeyPatch,
    checksums: str,
    how: str,
) -> None:
    files.files["SHA256SUMS"] = keys.gpg("--clearsign", given=LINE)
    gpgv = programs / "gpgv"
    gpgv.write_text("#!/bin/sh\nkill -9 $$\n")
    gpgv.chmod(0o755)
    if how in ("no memory", "not confined"):
        gpgv.unlink()
    web = source(server, threads, checksums=checksums, keyring=keys.public("keys.gpg"))
    if how == "gone":
        gpgv.unlink()
    elif how == "no memory":
        monkeypatch.setattr("os.memfd_create", _none_left)
    elif how == "not confined":
        monkeypatch.setattr("bootvol.jail.program.landlock", _no_landlock)
    with pytest.raises(SourceFailed, match="cannot be verified for now"):
        await stated(web, server)


def _none_left(*_: Any) -> int:
    raise OSError(errno.ENOMEM, "Cannot allocate memory")


def _no_landlock() -> int:
    raise Lacking("the kernel has no Landlock")


@pytest.mark.parametrize("user", [ROOT, ANOTHER])
def test_nothing_is_reached_from_inside_the_reader_of_signatures(user: int) -> None:
    """A list or a signature that has taken over gpgv reaches nothing.

    Break: `plugins/bootvol_plugins/http/signatures.py`:
    `self._jail.command([self._program, *options, "--", *names], bounds)` ->
    `[self._program, *options, "--", *names]`
    """
    assert attacks("signature", user) == []


@ensureDeferred
async def test_the_reader_of_signatures_writes_little(
    files: Files, server: Server, threads: Threads, keys: Keys, programs: Path
) -> None:
    """The output of gpgv is in memory, so the output is bounded.

    Break: `plugins/bootvol_plugins/http/signatures.py`: `"FSIZE": _OUTPUT` -> `"FSIZE": 2**40`
    """
    files.files["SHA256SUMS"] = keys.gpg("--clearsign", given=LINE)
    gpgv = programs / "gpgv"
    code = "import os\nos.lseek(1, 1 << 26, 0)\nos.write(1, b'x')\nos.write(2, b'[GNUPG:] GOODSIG')"
    gpgv.write_text(f"#!{PYTHON} -IS\n{code}\n")
    gpgv.chmod(0o755)
    web = source(server, threads, keyring=keys.public("keys.gpg"))
    with pytest.raises(SourceRefused, match="no key of the operator's keyring has signed it"):
        await stated(web, server)


def test_a_keyring_that_is_of_no_use(server: Server, threads: Threads, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        source(server, threads, keyring=str(tmp_path / "none"))
    (tmp_path / "empty").touch()
    with pytest.raises(ConfigurationError, match="the file contains no public key"):
        source(server, threads, keyring=str(tmp_path / "empty"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bootvol.jail.program.landlock", _no_landlock)
        with pytest.raises(ConfigurationError, match=r"confined here: the kernel has no Landlock"):
            source(server, threads, keyring=str(tmp_path / "empty"))
