"""Finds images with the right of who asks, and reads them with bootvol's own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

from twisted.logger import Logger
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse
from zope.interface import implementer

from bootvol.errors import (
    BootvolError,
    DigestMismatch,
    Forbidden,
    ImageNotFound,
    SourceFailed,
    SourceRefused,
    Unauthorized,
)
from bootvol.interfaces import IClosable, IImageSource, IImageStream, ILocatedStream
from bootvol.model import Caller, Image
from bootvol_plugins.glance.api import DATA, Glance
from bootvol_plugins.glance.images import described, is_id, page, usable
from bootvol_plugins.glance.options import GlanceOptions
from bootvol_plugins.http.addresses import ANYWHERE, CheckedEndpoints
from bootvol_plugins.http.client import Client, stop, trusting
from bootvol_plugins.http.direct import DirectAgent
from bootvol_plugins.http.ranges import size_from
from bootvol_plugins.http.stream import BodyStream
from bootvol_plugins.keystone.api import Keystone

#: How many images are listed at most, and how many are asked for at once: as many as Glance gives
#: by default (`api_limit_max`). Each answer costs Glance a fifth of a second besides.
_MOST: Final = 10_000
_PAGE: Final = 1000

#: What is answered where a part of the data might be had, but is not sent: its file is lost, its
#: store knows no ranges, it is empty.
_WITHOUT: Final = frozenset({204, 400, 416})
_MISSING: Final = frozenset({404, 410})
#: What somebody is answered who has no business there.
_UNKNOWN: Final = frozenset({401, 403})

_T = TypeVar("_T")


@implementer(IImageSource, IClosable)
class GlanceSource:
    """An image is its id in Glance.

    :param name: what the operator calls this source.
    :param keystone: gives out tokens of bootvol's own, to read images with.
    :param reactor: its clock.
    :param stall: seconds that Glance may send nothing, while something is wanted.
    """

    _log = Logger()

    def __init__(
        self, name: str, glance: Glance, keystone: Keystone, reactor: Any, stall: float
    ) -> None:
        self.name = name
        self._glance = glance
        self._keystone = keystone
        self._reactor = reactor
        self._stall = stall

    async def images(self, caller: Caller) -> Sequence[Image]:
        """See :meth:`bootvol.interfaces.IImageSource.images`; what no volume can be is left out.

        Whom Glance does not know may use none of its images, but those of other sources.
        """
        try:
            token = _token(caller)
        except Unauthorized:
            return []
        found: list[Image] = []
        marker: list[tuple[str, str]] = []
        for _ in range(_MOST // _PAGE):
            query = [
                ("limit", str(_PAGE)),
                ("sort_key", "id"),
                ("sort_dir", "asc"),
                ("status", "active"),
                *marker,
            ]
            code, answer = await self._glance.get_json(token, ["images"], query)
            if code in _UNKNOWN:
                return []
            if code != 200:
                raise SourceFailed(f"Glance answers {code} to the question which images there are.")
            part = page(answer)
            for each in part.images:
                try:
                    found.append(usable(each, self.name))
                except BootvolError:
                    continue
            if part.next is None or not part.images:
                break
            marker = [("marker", part.images[-1].id)]
        return sorted(found, key=lambda image: image.id)

    async def find(self, caller: Caller, reference: str) -> Image:
        """See :meth:`bootvol.interfaces.IImageSource.find`.

        Glance lets some see an image who may not have its data: that is asked for, too.
        """
        if not is_id(reference):
            raise ImageNotFound(reference)
        token = _token(caller)
        code, answer = await self._glance.get_json(token, ["images", reference])
        if code != 200:
            raise _refusal(code, reference)
        image = usable(described(answer), self.name)
        code, response = await self._glance.get_data(
            token, ["images", image.id, "file"], Headers({"Range": ["bytes=0-0"]})
        )
        if code in DATA:
            stop(response)
        elif code not in _WITHOUT:
            raise _refusal(code, reference)
        return image

    async def open(
        self, image: Image, offset: int = 0, validator: str | None = None
    ) -> IImageStream:
        """See :meth:`bootvol.interfaces.IImageSource.open`.

        :raises bootvol.errors.ImageUnusable: it has been deactivated meanwhile.
        :raises bootvol.errors.DigestMismatch: Glance has other data for it now.
        """
        location = await self._same(image)
        if offset and validator and validator == image.validator:
            code, response = await self._data(image, Headers({"Range": [f"bytes={offset}-"]}))
            if code == 206 and size_from(response, offset) == image.size_bytes:
                return self._stream(response, image, location, offset)
            if code == 200:
                return self._stream(response, image, location)
            if code == 206:
                stop(response)
            # Else it begins at the image's end, say, or the store knows no ranges.
        code, response = await self._data(image)
        if code == 200:
            return self._stream(response, image, location)
        if code == 206:
            stop(response)
        if code == 204:
            raise SourceRefused(f"Glance knows image {image.id}, but has lost its data.")
        raise _own_refusal(code, image)

    async def _same(self, image: Image) -> str | None:
        """See that Glance still has the very image that was found, and gives it out.

        :returns: where in Ceph it lies, if Glance says so.
        """
        code, answer = await self._with_own_token(
            lambda token: self._glance.get_json(token, ["images", image.id])
        )
        if code != 200:
            raise _own_refusal(code, image)
        found = described(answer)
        now = usable(found, self.name)
        if (now.size_bytes, now.digest) != (image.size_bytes, image.digest):
            raise DigestMismatch(f"Image {image.id} is another one in Glance by now.")
        return found.in_ceph

    async def _data(self, image: Image, headers: Headers | None = None) -> tuple[int, IResponse]:
        return await self._with_own_token(
            lambda token: self._glance.get_data(token, ["images", image.id, "file"], headers)
        )

    async def _with_own_token(
        self, ask: Callable[[str], Awaitable[tuple[int, _T]]]
    ) -> tuple[int, _T]:
        """Ask with bootvol's own token, and with a new one where Glance no longer takes it."""
        token = await self._own_token()
        code, answer = await ask(token)
        if code == 401:
            self._keystone.forget(token)
            code, answer = await ask(await self._own_token())
        return code, answer

    async def _own_token(self) -> str:
        try:
            return await self._keystone.own_token()
        except SourceFailed as error:
            self._log.warn("{failure}", failure=error.message)
            raise SourceFailed(
                "bootvol's own user cannot log in to Keystone for now.", error.retry_after
            ) from error

    async def close(self) -> None:
        """See :meth:`bootvol.interfaces.IClosable.close`."""
        await self._keystone.close()

    def _stream(
        self, response: IResponse, image: Image, location: str | None, offset: int = 0
    ) -> IImageStream:
        return _GlanceStream(response, self._reactor, self._stall, image, location, offset)


@implementer(ILocatedStream)
class _GlanceStream(BodyStream):
    """An image's data as Glance sends it, and where it lies."""

    def __init__(
        self,
        response: IResponse,
        reactor: Any,
        stall: float,
        image: Image,
        location: str | None,
        offset: int,
    ) -> None:
        super().__init__(response, reactor, stall, image.size_bytes, offset, image.validator)
        self.location = location


def make(name: str, options: GlanceOptions, reactor: Any) -> GlanceSource:
    """Return a source as the operator wants it; blocks, so only when the daemon is put together.

    :raises bootvol.errors.ConfigurationError: ``ca`` is of no use.
    """
    endpoints = CheckedEndpoints(reactor, ANYWHERE, trusting(options.ca), options.timeout, name)
    client = Client(DirectAgent(reactor, endpoints), reactor, options.timeout)
    glance = Glance(options.endpoints, client, reactor, options.stall)
    keystone = Keystone(options.keystone, reactor)
    return GlanceSource(name, glance, keystone, reactor, options.stall)


def _token(caller: Caller) -> str:
    """Return what Glance knows the caller by.

    :raises Unauthorized: there is nothing, or what can be no token of Keystone's.
    """
    token = caller.token or ""
    if not token or not token.isascii() or not token.isprintable():
        raise Unauthorized
    return token


def _refusal(code: int, reference: str) -> BootvolError:
    """Return what it means that Glance refuses something to a caller."""
    if code == 401:
        return Unauthorized()
    if code == 403:
        return Forbidden(f"Glance does not allow you the use of {reference}.")
    if code in _MISSING:
        return ImageNotFound(reference)
    return SourceRefused(f"Glance answers {code}.")


def _own_refusal(code: int, image: Image) -> BootvolError:
    """Return what it means that Glance refuses an image to bootvol's own user."""
    if code == 401:
        return SourceFailed("Glance does not accept the token of bootvol's own user.")
    if code == 403:
        return SourceRefused(f"Glance does not let bootvol's own user read image {image.id}.")
    return _refusal(code, image.id)
