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
from bootvol_plugins.http.checksums import LONGEST, Ambiguous, find_digest
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
    "sha256sum.txt",  # CentOS
    "{image}.SHA256",  # Arch Linux
    "{image}.sha512",  # Alpine Linux
    "CHECKSUM.SHA256",  # FreeBSD
    "sha256sums",  # OpenWrt
    "{image}.md5",  # Cirros
    "MD5SUMS",
)
#: Fedora-Cloud-Base-Generic-41-1.4.x86_64.qcow2 is listed in Fedora-Cloud-41-1.4-x86_64-CHECKSUM.
_FEDORA: Final = re.compile(
    r"(Fedora-[A-Za-z]+)-(?=.*[-.](\d+(?:_[A-Za-z]+)?-[\d.n]*\d)[-.])"
    r"(?=.*[-.](x86_64|aarch64|ppc64le|s390x)[-.]).*"
)
#: How many directories' lists are remembered by name.
_REMEMBERED: Final = 256


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
        self._found_last: dict[str, str] = {}

    async def digest_of(self, url: DecodedURL) -> Digest | None:
        """Return the digest that is stated for the image at ``url``; None where none need be.

        :raises bootvol.errors.SourceRefused: there is no list, or it does not list the image, or
            nobody trusted has signed it, where the operator wants that.
        :raises bootvol.errors.SourceFailed: it does not come.
        """
        if self._names == NONE:
            return None
        if self._names != AUTO:
            return await self._stated(url, _named(self._names, url))
        return await self._looked_for(url)

    async def _stated(self, url: DecodedURL, name: str) -> Digest:
        """Return the digest that a list states which has to be there."""
        if not self._allowed(_beside(url, name)):
            raise SourceRefused(f"{name} beside the image is not allowed to be read.")
        try:
            found = await self._read(url, name)
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
        for name in self._candidates(url, folder):
            if not self._allowed(_beside(url, name)):
                continue
            if self._reactor.seconds() > late:
                break
            try:
                found = await self._read(url, name)
            except SourceFailed as error:
                if self._keyring is not None:
                    raise
                self._log.info("{name} is not asked for: {error}", name=name, error=error.message)
                break
            except ImageNotFound:
                continue
            except SourceRefused as error:
                refused = refused or error
                continue
            if found is not None:
                self._remember(folder, name)
                return found
        if self._keyring is not None:
            raise refused or SourceRefused(
                f"No signed list of digests on {url.host} lists {name_of(url)}."
            )
        return None

    def _candidates(self, url: DecodedURL, folder: str) -> Sequence[str]:
        names = [_named(each, url) for each in _USUAL]
        fedora = _FEDORA.fullmatch(name_of(url))
        if fedora is not None:
            names.insert(0, f"{fedora[1]}-{fedora[2]}-{fedora[3]}-CHECKSUM")
        last = self._found_last.get(folder)
        return list(dict.fromkeys([*([last] if last else []), *names]))

    def _remember(self, folder: str, name: str) -> None:
        self._found_last.pop(folder, None)
        self._found_last[folder] = name
        if len(self._found_last) > _REMEMBERED:
            del self._found_last[next(iter(self._found_last))]

    async def _read(self, url: DecodedURL, name: str) -> Digest | None:
        """Return the digest that a list states for an image, if it lists that.

        :raises bootvol.errors.ImageNotFound: there is no such list.
        """
        text = await self._text(_beside(url, name))
        if self._keyring is not None:
            text = await self._verified(self._keyring, url, name, text)
        path = unquote("/".join(url.encoded_url.path), errors="replace")
        try:
            return find_digest(text.decode("utf-8", "replace"), path, name)
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
