"""The glance source: finds images with the caller's token, and reads them with bootvol's own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final, TypeVar

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
from bootvol.interfaces import (
    IClosable,
    IImageStream,
    IImageTaker,
    IImageUpload,
    ILocatedStream,
)
from bootvol.model import Caller, Image, ImageRecord
from bootvol.reactors import IReactor
from bootvol_plugins.glance import uploads
from bootvol_plugins.glance.api import DATA, Glance
from bootvol_plugins.glance.images import described, is_id, page, usable
from bootvol_plugins.glance.options import GlanceOptions
from bootvol_plugins.http.addresses import ANYWHERE, CheckedEndpoints
from bootvol_plugins.http.client import Client, stop, trusting
from bootvol_plugins.http.direct import DirectAgent
from bootvol_plugins.http.ranges import fitting, rest
from bootvol_plugins.http.stream import BodyStream
from bootvol_plugins.keystone.api import Keystone

#: Maximum number of images in a list, and in one answer. The latter is Glance's default limit
#: (`api_limit_max`). Each answer costs Glance a fifth of a second in addition.
_MOST: Final = 10_000
_PAGE: Final = 1000
#: Number of images to validate in one turn of the reactor: a millisecond.
_AT_ONCE: Final = 50

#: Statuses for a caller who may have the data, if Glance cannot send the part: the file is lost,
#: the store does not support ranges, or the image is empty.
_WITHOUT: Final = frozenset({204, 400, 416})
_PATCH: Final = "application/openstack-images-v2.1-json-patch"
_MISSING: Final = frozenset({404, 410})
#: Statuses for a caller unknown to Glance or without rights.
_UNKNOWN: Final = frozenset({401, 403})

_T = TypeVar("_T")


@implementer(IImageTaker, IClosable)
class GlanceSource:
    """A source of Glance's images.  An image has the same id as in Glance.

    :param name: the source's name in the configuration.
    :param keystone: provides bootvol's own tokens, to read images.
    :param reactor: the clock.
    :param stall: seconds without a requested byte until a stream fails.
    """

    _log = Logger()

    def __init__(
        self, name: str, glance: Glance, keystone: Keystone, reactor: IReactor, stall: float
    ) -> None:
        self.name = name
        self._glance = glance
        self._keystone = keystone
        self._reactor = reactor
        self._stall = stall

    async def images(self, caller: Caller) -> Sequence[Image]:
        """See :meth:`bootvol.interfaces.IImageSource.images`.  Unusable images are left out.

        A caller unknown to Glance gets an empty list, and may use the images of other sources.
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
            code, answer = await self._glance.get_json(caller.tenant, token, ["images"], query)
            if code in _UNKNOWN:
                return []
            if code != 200:
                raise SourceFailed(f"Glance answers {code} to the request for the list of images.")
            part = page(answer)
            last = ""
            for start in range(0, len(part.images), _AT_ONCE):
                await self._glance.pace.turn(caller.tenant)
                for each in part.images[start : start + _AT_ONCE]:
                    shown = described(each)
                    last = shown.id
                    with suppress(BootvolError):
                        found.append(usable(shown, self.name))
            if part.next is None or not last:
                break
            marker = [("marker", last)]
        return sorted(found, key=lambda image: image.id)

    async def find(self, caller: Caller, reference: str) -> Image:
        """See :meth:`bootvol.interfaces.IImageSource.find`.

        Glance shows some images to callers who may not have the data.  So this method also requests
        a part of the data.
        """
        if not is_id(reference):
            raise ImageNotFound(reference)
        token = _token(caller)
        code, answer = await self._glance.get_json(caller.tenant, token, ["images", reference])
        if code != 200:
            raise _refusal(code, reference)
        image = usable(described(answer), self.name)
        code, response = await self._glance.get_data(
            caller.tenant, token, ["images", image.id, "file"], Headers({"Range": ["bytes=0-0"]})
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

        :raises bootvol.errors.ImageUnusable: if the image has been deactivated in the meantime.
        :raises bootvol.errors.DigestMismatch: if Glance now has other data for the image.
        """
        location = await self._same(image)
        if offset and validator and validator == image.validator:
            code, response = await self._data(image, rest(offset))
            stream = self._stream(response, image, location, offset, ranged=True)
            if stream is not None:
                return stream
            # The offset may be the image's end, or the store may not support ranges.
        code, response = await self._data(image)
        stream = self._stream(response, image, location)
        if stream is not None:
            return stream
        if code == 204:
            raise SourceRefused(f"Glance knows image {image.id}, but has lost its data.")
        raise _own_refusal(code, image)

    async def take(self, caller: Caller, record: ImageRecord) -> None:
        """See :meth:`bootvol.interfaces.IImageTaker.take`."""
        code, _ = await self._glance.send_json(
            caller.tenant, _token(caller), "POST", ["images"], uploads.described(record)
        )
        if code != 201:
            raise uploads.refused(code)

    async def receive(self, caller: Caller, record: ImageRecord, size: int) -> IImageUpload:
        """See :meth:`bootvol.interfaces.IImageTaker.receive`."""
        token = _token(caller)
        return uploads.GlanceUpload(self._glance, token, record, size, self._reactor, self._stall)

    async def give_up(self, caller: Caller | None, image_id: str) -> None:
        """See :meth:`bootvol.interfaces.IImageTaker.give_up`."""
        token = await self._own_token() if caller is None else _token(caller)
        try:
            shown = await uploads.look(self._glance, token, image_id)
        except ImageNotFound:
            return
        if shown.status == "active":
            return
        path = ["images", image_id]
        if shown.protected:
            # Glance deletes no protected image, not even one without bytes.
            change = [{"op": "replace", "path": "/protected", "value": False}]
            code, _ = await self._glance.send_json("", token, "PATCH", path, change, _PATCH)
            if code not in {200, *_MISSING}:
                raise uploads.refused(code)
        code, _ = await self._glance.send_json("", token, "DELETE", path, None)
        if code not in {204, *_MISSING}:
            raise uploads.refused(code)

    async def _same(self, image: Image) -> str | None:
        """Check that Glance still has the same image, in a usable state.

        :returns: the image's location in Ceph, if Glance shows one.
        """
        code, answer = await self._with_own_token(
            lambda token: self._glance.get_json("", token, ["images", image.id])
        )
        if code != 200:
            raise _own_refusal(code, image)
        found = described(answer)
        now = usable(found, self.name)
        if (now.size_bytes, now.digest) != (image.size_bytes, image.digest):
            raise DigestMismatch(f"Image {image.id} has been replaced in Glance.")
        return found.in_ceph

    async def _data(self, image: Image, headers: Headers | None = None) -> tuple[int, IResponse]:
        return await self._with_own_token(
            lambda token: self._glance.get_data("", token, ["images", image.id, "file"], headers)
        )

    async def _with_own_token(
        self, ask: Callable[[str], Awaitable[tuple[int, _T]]]
    ) -> tuple[int, _T]:
        """Send a request with bootvol's own token, and again with a new one after a 401."""
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
        self,
        response: IResponse,
        image: Image,
        location: str | None,
        offset: int = 0,
        *,
        ranged: bool = False,
    ) -> IImageStream | None:
        """Return the stream of an answer; None if the answer is not the image's data.

        :param ranged: whether a part was requested.
        """
        if response.code not in DATA:
            return None
        part = fitting(response, image, offset, ranged=ranged)
        if part is None or (ranged and part.size not in (None, image.size_bytes)):
            stop(response)
            return None
        skip = offset - part.start
        return _GlanceStream(response, self._reactor, self._stall, image, location, offset, skip)


@implementer(ILocatedStream)
class _GlanceStream(BodyStream):
    """The stream of an image's data from Glance, with the image's location."""

    def __init__(
        self,
        response: IResponse,
        reactor: IReactor,
        stall: float,
        image: Image,
        location: str | None,
        offset: int,
        skip: int,
    ) -> None:
        super().__init__(response, reactor, stall, image.size_bytes, offset, image.validator, skip)
        self.location = location


def make(name: str, options: GlanceOptions, reactor: IReactor) -> GlanceSource:
    """Return a source with the operator's settings.  Blocks; call while the daemon starts.

    :raises bootvol.errors.ConfigurationError: if the file ``ca`` cannot be used.
    """
    endpoints = CheckedEndpoints(reactor, ANYWHERE, trusting(options.ca), options.timeout, name)
    client = Client(DirectAgent(reactor, endpoints), reactor, options.timeout)
    glance = Glance(options.endpoints, client, reactor, options.stall)
    keystone = Keystone(options.keystone, reactor)
    return GlanceSource(name, glance, keystone, reactor, options.stall)


def _token(caller: Caller) -> str:
    """Return the caller's token for Glance.

    :raises Unauthorized: if the caller has no token, or a text that cannot be a Keystone token.
    """
    token = caller.token or ""
    if not token or not token.isascii() or not token.isprintable():
        raise Unauthorized
    return token


def _refusal(code: int, reference: str) -> BootvolError:
    """Return the error for Glance's refusal of a caller's request."""
    if code == 401:
        return Unauthorized()
    if code == 403:
        return Forbidden(f"Glance does not allow you to use {reference}.")
    if code in _MISSING:
        return ImageNotFound(reference)
    return SourceRefused(f"Glance answers {code}.")


def _own_refusal(code: int, image: Image) -> BootvolError:
    """Return the error for Glance's refusal of an image to bootvol's own user."""
    if code == 401:
        return SourceFailed("Glance does not accept the token of bootvol's own user.")
    if code == 403:
        return SourceRefused(f"Glance does not let bootvol's own user read image {image.id}.")
    return _refusal(code, image.id)
