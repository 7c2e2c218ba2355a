"""Finds the list that states an image's digest, by the names that projects give to lists."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final
from urllib.parse import quote, unquote

from hyperlink import DecodedURL
from twisted.internet.defer import ensureDeferred
from twisted.logger import Logger

from bootvol.errors import ImageNotFound, ImageTruncated, SourceFailed, SourceRefused
from bootvol.interfaces import IImageStream
from bootvol.model import Digest
from bootvol.threads import Threads
from bootvol_plugins.http.checksums import LONGEST, Ambiguous, find_digest, text_of
from bootvol_plugins.http.signatures import CLEARSIGNED, ENDINGS, Keyring, NotSigned
from bootvol_plugins.http.urls import name_of

#: Values of ``checksums`` that are no name: look for the usual ones, or for none.
AUTO: Final = "auto"
NONE: Final = "none"
#: Stands for the image's name in that of a list.
_IMAGE: Final = "{image}"

#: The usual names, in the order in which they are asked for.
_USUAL: Final = (
    "SHA256SUMS",  # Debian's derivatives, openSUSE, KDE
    "SHA512SUMS",  # Debian
    "{image}.sha256",  # openSUSE, Fedora CoreOS, Gentoo
    "CHECKSUM",  # AlmaLinux, Rocky Linux, CentOS Stream
    "{image}.CHECKSUM",  # Rocky Linux
    "{image}-CHECKSUM",
    "sha256sum.txt",  # CentOS, Void Linux
    "{image}.SHA256",  # Arch Linux
    "{image}.sha512",  # Alpine Linux
    "CHECKSUM.SHA256",  # FreeBSD
    "sha256sums",  # OpenWrt
    "{image}.md5",  # Cirros
    "MD5SUMS",
)
#: Names that some projects give to their lists, by the names of their images; before all others.
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
    (r"flatcar_.*", "{image}.DIGESTS"),
    (r"openwrt-.*", "sha256sums"),
)
#: How many directories' lists are remembered by name, and how many names that are of no list.
_REMEMBERED: Final = 256
_MISSES: Final = 4096
#: Seconds for which a list that was missing is not asked for again.
_MISSED: Final = 300.0


class Lists:
    """The lists of digests that lie beside images.

    :param names: those that the operator gave, which have to be there; :data:`AUTO` looks for the
        usual ones, and does without where there are none.
    :param keyring: what lists have to be signed with, then they have to be there as well.
    :param fetch: opens what is at a URL.
    :param allowed: tells whether a URL may be asked for.
    :param stall: seconds that a list may take to come.
    :param patience: seconds after which no more of the usual names are tried.
    """

    _log = Logger()

    def __init__(
        self,
        names: str,
        keyring: Keyring | None,
        fetch: Callable[[DecodedURL], Awaitable[IImageStream]],
        allowed: Callable[[DecodedURL], bool],
        reactor: Any,
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
        #: For each directory the name that was found last, as the tables have it.
        self._found_last: dict[str, str] = {}
        #: When the lists at these URLs were missing.
        self._missing: dict[str, float] = {}

    async def digest_of(self, url: DecodedURL) -> Digest | None:
        """Return the digest that is stated for the image at ``url``; None where none need be.

        :raises bootvol.errors.SourceRefused: there is no list, or it does not list the image, or
            nobody trusted has signed it, where the operator wants that.
        :raises bootvol.errors.SourceFailed: it does not come.
        """
        if self._names == NONE:
            return None
        if self._names != AUTO:
            return await self._stated(url, self._names)
        return await self._looked_for(url)

    async def _stated(self, url: DecodedURL, pattern: str) -> Digest:
        """Return the digest that a list states which has to be there."""
        name = _named(pattern, url)
        if not self._allowed(_beside(url, name)):
            raise SourceRefused(f"{name} beside the image is not allowed to be read.")
        try:
            found = await self._read(url, pattern)
        except ImageNotFound:
            raise SourceRefused(
                f"The list of digests {name} is missing beside the image on {url.host}."
            ) from None
        if found is None:
            raise SourceRefused(f"{name} on {url.host} does not list the image.")
        return found

    async def _looked_for(self, url: DecodedURL) -> Digest | None:
        folder = _beside(url, "").to_text()
        refused: SourceRefused | None = None
        late = self._reactor.seconds() + self._patience
        for pattern in self._candidates(url, folder):
            there = _beside(url, _named(pattern, url))
            if not self._allowed(there) or self._is_missing(there):
                continue
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
            except ImageNotFound:
                self._note_missing(there)
                continue
            except SourceRefused as error:
                refused = refused or error
                continue
            if found is not None:
                self._remember(folder, pattern)
                return found
        if self._keyring is not None:
            raise refused or SourceRefused(
                f"No signed list of digests on {url.host} lists {name_of(url)}."
            )
        return None

    def _candidates(self, url: DecodedURL, folder: str) -> Sequence[str]:
        """Return the names to ask for, each once, as the tables have them."""
        image = name_of(url)
        matches = ((re.fullmatch(images, image), name) for images, name in _OF_PROJECTS)
        projects = [match.expand(name) for match, name in matches if match is not None]
        last = self._found_last.get(folder)
        return list(dict.fromkeys([*([last] if last else []), *projects, *_USUAL]))

    def _is_missing(self, there: DecodedURL) -> bool:
        """Tell whether a list was missing a moment ago."""
        missed = self._missing.get(there.to_text())
        return missed is not None and self._reactor.seconds() - missed < _MISSED

    def _note_missing(self, there: DecodedURL) -> None:
        if self._keyring is not None:
            # The image is refused without it: whoever puts it there wants that to end.
            return
        self._missing.pop(there.to_text(), None)
        self._missing[there.to_text()] = self._reactor.seconds()
        if len(self._missing) > _MISSES:
            del self._missing[next(iter(self._missing))]

    def _remember(self, folder: str, pattern: str) -> None:
        self._found_last.pop(folder, None)
        self._found_last[folder] = pattern
        if len(self._found_last) > _REMEMBERED:
            del self._found_last[next(iter(self._found_last))]

    async def _read(self, url: DecodedURL, pattern: str) -> Digest | None:
        """Return the digest that a list states for an image, if it lists that.

        :param pattern: the name of the list; :data:`_IMAGE` stands for the image's in it.
        :raises bootvol.errors.ImageNotFound: there is no such list.
        """
        name = _named(pattern, url)
        text = await self._text(_beside(url, name))
        if self._keyring is not None:
            text = await self._verified(self._keyring, url, name, text)
        path = unquote("/".join(url.encoded_url.path), errors="replace")
        try:
            # What is signed says nothing of the list's own name.
            by_list = _IMAGE in pattern and self._keyring is None
            return find_digest(text_of(text), path, name, by_list=by_list)
        except Ambiguous:
            raise SourceRefused(
                f"{name} on {url.host} states several digests for the image."
            ) from None

    async def _verified(self, keyring: Keyring, url: DecodedURL, name: str, text: bytes) -> bytes:
        """Return what of a list is signed by a trusted key."""
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
            # Somebody waits for the answer to a request meanwhile.
            reading = ensureDeferred(stream.read_into(memoryview(text)))
            length = await reading.addTimeout(longest, self._reactor, _took_long)
        except ImageTruncated as error:
            raise SourceFailed(f"The list beside the image broke off on {url.host}.") from error
        finally:
            await stream.close()
        return bytes(text[:length])


def _named(pattern: str, url: DecodedURL) -> str:
    return pattern.replace(_IMAGE, name_of(url))


def _beside(url: DecodedURL, name: str) -> DecodedURL:
    """Return the URL of a file in the directory that an image lies in."""
    encoded = url.encoded_url
    beside = encoded.replace(path=(*encoded.path[:-1], quote(name, safe="")), query=())
    return DecodedURL(beside, lazy=True)


def _took_long(_result: object, timeout: float) -> int:
    raise SourceFailed(f"The list beside the image did not come within {timeout:g} seconds.")
