"""Search for the list with an image's digest, by the names that projects use for lists."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Final
from urllib.parse import quote, unquote

from hyperlink import DecodedURL
from twisted.internet.defer import ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from bootvol.errors import ImageNotFound, ImageTruncated, SourceFailed, SourceRefused
from bootvol.fair_share import Turns
from bootvol.interfaces import IImageStream
from bootvol.model import Digest
from bootvol.sparing import FewLines
from bootvol.threads import Threads
from bootvol_plugins.http.checksums import LONGEST, Ambiguous, find_digest, is_list, text_of
from bootvol_plugins.http.signatures import CLEARSIGNED, ENDINGS, Keyring, NotSigned
from bootvol_plugins.http.urls import name_of

#: Special values of ``checksums``: look for the usual names, or for no list.
AUTO: Final = "auto"
NONE: Final = "none"
#: The placeholder for the image's name in the name of a list.
IMAGE: Final = "{image}"

#: The usual names of lists, in the order of the requests.
_USUAL: Final = (
    "SHA256SUMS",  # Debian's derivatives, openSUSE, KDE
    "SHA512SUMS",  # Debian
    "{image}.sha256",  # openSUSE, Fedora CoreOS, Gentoo
    "CHECKSUM",  # AlmaLinux, Rocky Linux, CentOS Stream
    "{image}.CHECKSUM",  # Rocky Linux
    "{image}-CHECKSUM",
    "sha256sum.txt",  # CentOS, Linux Mint, Void Linux
    "{image}.SHA256",  # Arch Linux
    "{image}.sha512",  # Alpine Linux
    "CHECKSUM.SHA256",  # FreeBSD
    "sha256sums",  # OpenWrt
    "{image}.sha256sum",  # OpenIndiana, Solus
    "{image}.sha512sum",  # EndeavourOS
    "{image}.SHA512",
    "sha512sum.txt",  # Talos
    "sha256sums.txt",  # Arch Linux
    "{image}.SHA256SUM",  # CentOS Stream
    "SHA256SUM",
    "{image}.sha1",  # Manjaro
    "{image}.sha1sum",
    "SHA1SUMS",  # Ubuntu
    "{image}.md5",  # Cirros
    "{image}.md5sum",
    "MD5SUMS",
)
#: Names of some projects' lists, by the names of their images. These are tried before the usual
#: names.
_OF_PROJECTS: Final = (
    # Fedora-Cloud-Base-Generic-41-1.4.x86_64.qcow2: Fedora-Cloud-41-1.4-x86_64-CHECKSUM
    (
        r"(Fedora-[A-Za-z]+)-(?=.*[-.](\d+(?:_[A-Za-z]+)?-[\d.n]*\d)[-.])"
        r"(?=.*[-.](x86_64|aarch64|ppc64le|s390x)[-.]).*",
        r"\1-\2-\3-CHECKSUM",
    ),
    # FreeBSD-14.1-RELEASE-amd64-disc1.iso: CHECKSUM.SHA256-FreeBSD-14.1-RELEASE-amd64
    (
        r"(FreeBSD-.+?)-(?:disc1|dvd1|bootonly|(?:mini-)?memstick)\.(?:iso|img)(?:\.xz)?",
        r"CHECKSUM.SHA256-\1",
    ),
    (r"FreeBSD-.*", "CHECKSUM.SHA256"),
    # OpenBSD's install76.img
    (r"(?:install|miniroot|cd)\d\d\.(?:img|iso)", "SHA256"),
    (r"NetBSD-.*", "SHA512"),
    (r"archlinux-.*", "sha256sums.txt"),
    (r"CentOS-Stream-.*", "{image}.SHA256SUM"),
    (r"(?:flatcar_|Qubes-).*", "{image}.DIGESTS"),
    (r"Armbian_.*", "{image}.sha"),
    (r"clear-.*", "{image}-SHA512SUMS"),
    (r"openwrt-.*", "sha256sums"),
)
#: Number of lists that are read at once, one of each server at most.
_AT_ONCE: Final = 2
#: Maximum number of directories with a remembered list, and of remembered URLs without a list.
_REMEMBERED: Final = 256
_MISSES: Final = 4096
#: Seconds before a missing list is requested again.
_MISSED: Final = 300.0


class _NoList(Exception):
    """A file with the name of a list is no list."""


class Lists:
    """The lists of digests beside images.

    :param names: name of the operator's list; this list must exist.  :data:`AUTO` looks for the
        usual names, and accepts a missing list.  :data:`NONE` uses no list.
    :param keyring: keys that must have signed the list; with a keyring, the list must exist.
    :param fetch: opens the file at a URL.
    :param allowed: tells whether requests to a URL are allowed.
    :param stall: seconds to receive a list.
    :param patience: seconds until no more of the usual names are tried.
    """

    _log = Logger()

    def __init__(
        self,
        names: str,
        keyring: Keyring | None,
        fetch: Callable[[DecodedURL], Awaitable[IImageStream]],
        allowed: Callable[[DecodedURL], bool],
        reactor: IReactorTime,
        threads: Threads,
        stall: float,
        patience: float,
    ) -> None:
        self._names = names
        self._keyring = keyring
        self._fetch = fetch
        self._allowed = allowed
        self._reactor = reactor
        self._threads = threads
        self._stall = stall
        self._patience = patience
        #: A hostile list takes a second of a thread, and imports need the threads.
        self._turns = Turns(_AT_ONCE)
        #: A server may send a text for each name.
        self._lines = FewLines(reactor, self._log, "faults of lists of digests")
        #: The pattern of the last found list of each directory.
        self._found_last: dict[str, str] = {}
        #: The URLs of missing lists, with the time of the last request.
        self._missing: dict[str, float] = {}

    async def digest_of(self, url: DecodedURL) -> Digest | None:
        """Return the stated digest of the image at ``url``; None if no digest is found or needed.

        :raises bootvol.errors.SourceRefused: if the operator requires a list, and the list does not
            exist, does not list the image, or has no trusted signature.
        :raises bootvol.errors.SourceFailed: if the list cannot be received.
        """
        if self._names == NONE:
            return None
        if self._names != AUTO:
            return await self._stated(url, self._names)
        return await self._looked_for(url)

    async def _stated(self, url: DecodedURL, pattern: str) -> Digest:
        """Return the digest from a list that must exist."""
        name = _named(pattern, url)
        if not self._allowed(_beside(url, name)):
            raise SourceRefused(f"{name} beside the image is at a forbidden place.")
        try:
            found = await self._read(url, pattern)
        except ImageNotFound:
            raise SourceRefused(
                f"The list of digests {name} is missing beside the image on {url.host}."
            ) from None
        except Ambiguous:
            raise _ambiguous(url, pattern) from None
        if found is None:
            raise SourceRefused(f"{name} on {url.host} does not list the image.")
        return found

    async def _looked_for(self, url: DecodedURL) -> Digest | None:
        folder = _beside(url, "").to_text()
        refused: SourceRefused | None = None
        late = self._reactor.seconds() + self._patience
        for pattern, there in self._candidates(url, folder):
            if self._reactor.seconds() > late:
                break
            try:
                found = await self._read(url, pattern)
            except SourceFailed as error:
                if self._keyring is not None:
                    raise
                self._log.info(
                    "{list} is not asked for: {error}", list=there.to_text(), error=error.message
                )
                break
            except (ImageNotFound, _NoList):
                self._note_missing(there)
                continue
            except SourceRefused as error:
                self._note_refused(there, pattern, folder)
                refused = refused or error
                continue
            except Ambiguous:
                several = _ambiguous(url, pattern)
                self._warn(there, several.message)
                refused = refused or several
                continue
            if found is not None:
                self._remember(folder, pattern)
                return found
        if self._keyring is not None:
            raise refused or SourceRefused(
                f"No signed list of digests on {url.host} lists {name_of(url)}."
            )
        return None

    def _candidates(self, url: DecodedURL, folder: str) -> Iterator[tuple[str, DecodedURL]]:
        """Yield the patterns of names to try, each once, with the URL of the list."""
        image = name_of(url)
        matches = ((re.fullmatch(images, image), name) for images, name in _OF_PROJECTS)
        projects = [match.expand(name) for match, name in matches if match is not None]
        last = self._found_last.get(folder)
        for pattern in dict.fromkeys([*([last] if last else []), *projects, *_USUAL]):
            there = _beside(url, _named(pattern, url))
            if self._allowed(there) and not self._is_missing(there):
                yield pattern, there

    def _is_missing(self, there: DecodedURL) -> bool:
        """Tell whether a list was missing recently."""
        missed = self._missing.get(there.to_text())
        return missed is not None and self._reactor.seconds() - missed < _MISSED

    def _note_missing(self, there: DecodedURL) -> None:
        if self._keyring is not None:
            # The image is refused without the list. So a new list must work at once.
            return
        self._missing.pop(there.to_text(), None)
        self._missing[there.to_text()] = self._reactor.seconds()
        if len(self._missing) > _MISSES:
            del self._missing[next(iter(self._missing))]

    def _note_refused(self, there: DecodedURL, pattern: str, folder: str) -> None:
        """Note a list that the server refuses: perhaps the list does not exist (S3: 403).

        A list of a form that was found before exists, and is refused for a while.
        """
        if pattern != self._found_last.get(folder):
            self._note_missing(there)

    def _remember(self, folder: str, pattern: str) -> None:
        self._found_last.pop(folder, None)
        self._found_last[folder] = pattern
        if len(self._found_last) > _REMEMBERED:
            del self._found_last[next(iter(self._found_last))]

    async def _read(self, url: DecodedURL, pattern: str) -> Digest | None:
        """Return the digest that a list states for an image; None if the list has no such image.

        :param pattern: the name of the list; :data:`IMAGE` stands for the image's name.
        :raises bootvol.errors.ImageNotFound: if the list does not exist.
        :raises _NoList: if a file that was looked for is no list.
        :raises bootvol.errors.SourceRefused: if the operator's file is no list.
        :raises Ambiguous: if the list states several digests for the image.
        """
        name = _named(pattern, url)
        text = await self._text(_beside(url, name))
        if self._keyring is not None:
            text = await self._verified(self._keyring, url, name, text)
        path, told = unquote("/".join(url.encoded_url.path), errors="replace"), text_of(text)
        # A signature does not cover the name of the list.
        bare = self._keyring is None
        by_list = IMAGE in pattern and bare
        find = partial(find_digest, told, path, name, by_list=by_list, bare=bare)
        async with self._turns.turn(url.host):
            if await self._threads.run(is_list, told):
                return await self._threads.run(find)
        fault = "states no digest in a form that bootvol reads"
        if self._names != AUTO:
            raise SourceRefused(f"{name} on {url.host} {fault}.")
        # Many servers send a page for a file that does not exist.
        if not told.lstrip().startswith("<"):
            self._warn(_beside(url, name), f"the file {fault}")
        raise _NoList

    def _warn(self, there: DecodedURL, fault: str) -> None:
        """Log a fault of a list, within the limit of lines."""
        if self._lines.admit():
            self._log.warn("{list}: {fault}", list=there.to_text(), fault=fault)

    async def _verified(self, keyring: Keyring, url: DecodedURL, name: str, text: bytes) -> bytes:
        """Return the part of a list that a trusted key has signed."""
        signature = None
        if not text.lstrip(b"\xef\xbb\xbf").startswith(CLEARSIGNED):
            signature = await self._signature(url, name)
        try:
            return await self._threads.run(keyring.verify, text, signature)
        except NotSigned as error:
            raise SourceRefused(
                f"{name} on {url.host}, which states the digest of {name_of(url)},"
                f" cannot be trusted: {error}."
            ) from None

    async def _signature(self, url: DecodedURL, name: str) -> bytes:
        for ending in ENDINGS:
            try:
                return await self._text(_beside(url, name + ending))
            except (ImageNotFound, SourceRefused):
                continue
        raise SourceRefused(
            f"{name} on {url.host}, which states the digest of {name_of(url)}, is not signed."
        )

    async def _text(self, url: DecodedURL) -> bytes:
        stream = await self._fetch(url)
        longest = min(self._stall, self._patience) if self._names == AUTO else self._stall
        try:
            text = bytearray(LONGEST)
            # A caller waits meanwhile, so limit the time.
            reading = ensureDeferred(stream.read_into(memoryview(text)))
            length = await reading.addTimeout(longest, self._reactor, _took_long)
        except ImageTruncated as error:
            raise SourceFailed(f"The list beside the image broke off on {url.host}.") from error
        finally:
            await stream.close()
        return bytes(text[:length])


def _ambiguous(url: DecodedURL, pattern: str) -> SourceRefused:
    name = _named(pattern, url)
    return SourceRefused(f"{name} on {url.host} states several digests for the image.")


def _named(pattern: str, url: DecodedURL) -> str:
    return pattern.replace(IMAGE, name_of(url))


def _beside(url: DecodedURL, name: str) -> DecodedURL:
    """Return the URL of a file in the image's directory."""
    encoded = url.encoded_url
    beside = encoded.replace(path=(*encoded.path[:-1], quote(name, safe="")), query=())
    return DecodedURL(beside, lazy=True)


def _took_long(_result: object, timeout: float) -> int:
    raise SourceFailed(f"The list beside the image did not come within {timeout:g} seconds.")
