"""The http source: finds and opens images at URLs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

import attrs
from hyperlink import DecodedURL
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse
from zope.interface import implementer

from bootvol.errors import (
    BootvolError,
    ImageNotFound,
    InvalidImageRef,
    SourceFailed,
    SourceRefused,
)
from bootvol.interfaces import IClosable, IImageStream, IPartSource, IUrlSource
from bootvol.jail import Jail
from bootvol.model import Caller, Digest, Image
from bootvol.reactors import IReactor
from bootvol.threads import Threads
from bootvol_plugins.http.client import is_unanswered, stop
from bootvol_plugins.http.connections import Server
from bootvol_plugins.http.encodings import decoded, encodings_of
from bootvol_plugins.http.lists import Lists
from bootvol_plugins.http.mirrors import Mirrors
from bootvol_plugins.http.options import HttpOptions
from bootvol_plugins.http.parallel import ParallelStream
from bootvol_plugins.http.parts import Parts, is_encoded
from bootvol_plugins.http.ranges import (
    comparable,
    fitting,
    is_at_end,
    is_whole,
    length_of,
    part_of,
    rest,
    states_ranges,
    validator_of,
)
from bootvol_plugins.http.requests import Requests
from bootvol_plugins.http.signatures import Keyring
from bootvol_plugins.http.stream import BodyStream
from bootvol_plugins.http.urls import Refused, lies_under, name_of, parse

_MISSING: Final = frozenset({404, 410})
#: Largest web page in bytes that counts as sent instead of an image.
_LONGEST_PAGE: Final = 1024 * 1024
#: The range of requests for size and validator, used instead of HEAD: servers get HEAD wrong.
_FIRST_BYTE: Final = Headers({"Range": ["bytes=0-0"]})


@implementer(IPartSource, IUrlSource, IUrlSource, IClosable)
class HttpSource:
    """A source of images at URLs.  The URL is the image's id.

    :param name: the source's name in the configuration.
    :param options: the source's settings.
    :param threads: run blocking calls.
    :param jail: confines gpgv.
    """

    def __init__(
        self, name: str, options: HttpOptions, reactor: IReactor, threads: Threads, jail: Jail
    ) -> None:
        self.name = name
        self._allow = [parse(prefix) for prefix in options.allow]
        self._stall = options.stall
        self._connections = options.connections
        self._mirrors = Mirrors(options.mirrors, reactor)
        self._reactor = reactor
        self._threads = threads
        self._requests = Requests(name, options, reactor, self._allow)
        keyring = None if options.keyring is None else Keyring(options.keyring, jail)
        self._lists = Lists(
            options.checksums,
            keyring,
            self._list,
            lambda url: lies_under(url, self._allow),
            reactor,
            threads,
            options.stall,
            options.timeout,
        )

    async def images(self, caller: Caller) -> Sequence[Image]:
        """See :meth:`bootvol.interfaces.IImageSource.images`.  The web has no list of images."""
        return []

    async def find(self, caller: Caller, reference: str) -> Image:
        """See :meth:`bootvol.interfaces.IImageSource.find`."""
        if "://" not in reference:
            raise ImageNotFound(reference)
        try:
            url = parse(reference)
        except Refused as error:
            raise InvalidImageRef(f"Invalid imageRef provided: the URL {error}.") from None
        if not lies_under(url, self._allow):
            # Another source may know the URL, or the id at its end.
            raise ImageNotFound(reference)
        name = name_of(url) or (url.host if url.encoded_url.query else "")
        if not name:
            raise ImageNotFound(reference)
        size, validator = await self._look(url)
        digest = await self._lists.digest_of(url)
        return Image(
            id=url.to_text(),
            source=self.name,
            name=name,
            size_bytes=size,
            digest=digest,
            validator=_proof(digest) or validator,
        )

    async def _look(self, url: DecodedURL) -> tuple[int | None, str | None]:
        """Return an image's size and validator; None for a value that the server does not state."""
        try:
            response = await self._requests.ask(url, _FIRST_BYTE)
        except SourceFailed as error:
            if not is_unanswered(error):
                raise
            response = await self._requests.ask(url)
        part = part_of(response)
        first_byte = part is not None and not part.start and part.size is not None
        if not first_byte and not is_whole(response, None, ranged=True):
            stop(response)
            response = await self._requests.ask(url)
            part = part_of(response)
        stop(response)
        if part is None or part.start:
            self._check_whole(response, url)
        if encodings_of(response):
            # Size and validator may be those of the encoded bytes.
            return None, None
        return part.size if part is not None else length_of(response), validator_of(response)

    async def open(
        self, image: Image, offset: int = 0, validator: str | None = None
    ) -> IImageStream:
        """See :meth:`bootvol.interfaces.IImageSource.open`."""
        urls = self._urls(image)
        named, error = parse(image.id).to_text(), None
        more = urls
        if not offset:
            # The wrong bytes may have come from a mirror, and the named server is well again.
            urls.sort(key=lambda each: each.to_text() != named)
            more = [] if self._mirrors.gave_lately(parse(image.id)) else urls
        for url in urls:
            # A comparison of the URLs themselves fails for host names that IDNA forbids.
            is_named = url.to_text() == named
            try:
                stream = await self._open(url, image, offset, validator)
            except BootvolError as failure:
                self._mirrors.failed(url)
                # The server of the named URL knows best.
                error = failure if error is None or is_named else error
                continue
            if is_named or _continues(stream, image, offset, validator):
                return self._parallel(stream, [url, *more], image)
            await stream.close()
        assert error is not None  # noqa: S101 - the named URL has failed
        raise error

    async def _open(
        self, url: DecodedURL, image: Image, offset: int, validator: str | None
    ) -> IImageStream:
        """Open an image, or its rest, over one connection."""
        if not offset or not validator:
            response = await self._requests.ask(url)
            if image.size_bytes is not None:
                _refuse_page(response, image, url)
            return await self._opened(response, url, image)
        if image.validator not in (None, validator):
            # The size found before is that of an older image.
            image = attrs.evolve(image, size_bytes=None)
        # With a stated digest, the digest finally shows whether the parts belong to one image. The
        # server then needs no validator, and may be another mirror each time.
        condition = None if validator == _proof(image.digest) else validator
        asked = await self._asked_for_rest(url, offset, condition)
        ranged = asked is not None and (
            part_of(asked) is not None or is_whole(asked, image.size_bytes, ranged=True)
        )
        if asked is not None and not ranged:
            # The server may not support ranges, or not this range. Request the whole image.
            stop(asked)
            asked = None
        response = asked or await self._requests.ask(url)
        same = condition is None or validator_of(response) == condition
        _refuse_page(response, image, url, same=same)
        usable = same and not is_encoded(response)
        part = fitting(response, image, offset, ranged=ranged) if usable else None
        if part is not None:
            skip = offset - part.start
            return BodyStream(
                response, self._reactor, self._stall, part.size, offset, validator, skip
            )
        if ranged and (response.code == 206 or part_of(response) is not None):
            stop(response)
            response = await self._requests.ask(url)
        return await self._opened(response, url, image)

    async def open_part(
        self, image: Image, offset: int, length: int, validator: str | None = None
    ) -> IImageStream:
        """See :meth:`bootvol.interfaces.IPartSource.open_part`."""
        proof = _proof(image.digest)
        url, *others = self._urls(image)
        parts = self._parts(url, validator, proof)
        try:
            response = await parts.ask(offset, length)
        except BootvolError as error:
            if not (others or (isinstance(error, SourceFailed) and is_unanswered(error))):
                raise
            self._mirrors.failed(url)
            return await self.open(image, offset, validator)
        if validator is None:
            known = proof or comparable(validator_of(response), image.validator)
            parts = attrs.evolve(parts, validator=known)
        part = parts.stream(response, offset, length)
        if part is not None:
            if url == parse(image.id) or _continues(part, image, offset, validator):
                return part
            await part.close()
        # The server may not support ranges, or may have another image now.
        return await self.open(image, offset, validator)

    def _parts(self, url: DecodedURL, validator: str | None, proof: str | None) -> Parts:
        """Return the parts of an image with a validator.

        :param proof: the digest of the image as a validator, or None.
        """
        condition = None if validator == proof else validator
        return Parts(self._requests, self._reactor, self._stall, url, validator, condition)

    def _parallel(
        self, stream: IImageStream, urls: Sequence[DecodedURL], image: Image
    ) -> IImageStream:
        """Return a stream that may use more connections, if the parts prove to be of one image.

        :param urls: the URLs of the image; first the URL of ``stream``.
        """
        size, validator, proof = stream.size, stream.validator, _proof(image.digest)
        named = parse(image.id)
        urls = list(dict.fromkeys(urls))
        alone = self._connections == 1 and len(urls) == 1
        if alone or not size or not validator or type(stream) is not BodyStream:
            return stream
        servers = [
            Server(
                partial(self._parts(url, validator, proof).open, size),
                partial(self._mirrors.failed, url),
                partial(self._mirrors.gave, named, url),
            )
            for url in urls
        ]
        crowds = [self._requests.crowds.of(url.host) for url in urls]
        return ParallelStream(stream, size, servers, self._connections, self._reactor, crowds)

    async def close(self) -> None:
        """See :meth:`bootvol.interfaces.IClosable.close`."""
        await self._requests.close()

    def _urls(self, image: Image) -> list[DecodedURL]:
        """Return the URLs of an image that was found before, in the order to try.

        :raises SourceRefused: if the operator has forbidden the named URL since.
        """
        url = parse(image.id)
        if not lies_under(url, self._allow):
            raise SourceRefused("The operator no longer allows images from this URL.")
        return [each for each in self._mirrors.of(url) if lies_under(each, self._allow)]

    async def _asked_for_rest(
        self, url: DecodedURL, offset: int, condition: str | None
    ) -> IResponse | None:
        """Return the answer to a request for the rest from ``offset``; None without an answer.

        :param condition: the validator that the image must still have, or None.
        """
        at = offset
        try:
            response = await self._requests.ask(url, rest(at, condition))
            if is_at_end(response, offset):
                # An answer with the last byte states more about the image.
                stop(response)
                at -= 1
                response = await self._requests.ask(url, rest(at, condition))
            if (
                condition is not None
                and is_whole(response, None, ranged=True)
                and validator_of(response) == condition
                and states_ranges(response)
            ):
                # The image is the same, so the condition was met: the server does not support
                # If-Range.
                stop(response)
                response = await self._requests.ask(url, rest(at))
        except SourceFailed as error:
            if not is_unanswered(error):
                raise
            return None
        return response

    async def _list(self, url: DecodedURL) -> IImageStream:
        """Open a list of digests."""
        response = await self._requests.ask(url)
        return await self._whole(response, url, None, length_of(response))

    async def _opened(self, response: IResponse, url: DecodedURL, image: Image) -> IImageStream:
        """Return a stream of the whole image in an answer."""
        validator = _proof(image.digest) or comparable(validator_of(response), image.validator)
        part = part_of(response)
        size = length_of(response) if part is None else part.size
        if size is None and validator and image.validator and validator != image.validator:
            # The size of the image found before does not count for another image.
            try:
                size, _ = await self._look(url)
            except BaseException:
                stop(response)
                raise
        return await self._whole(response, url, validator, size, image.size_bytes)

    async def _whole(
        self,
        response: IResponse,
        url: DecodedURL,
        validator: str | None,
        size: int | None,
        before: int | None = None,
    ) -> IImageStream:
        """Return a stream of the whole file in an answer, decoded if necessary.

        :param size: size of the file in bytes, if the file is not encoded; None if unknown.
        :param before: the size that was found before, or None.
        """
        try:
            self._check_whole(response, url, before)
            encodings = encodings_of(response)
        except Exception:
            stop(response)
            raise
        size = length_of(response) if encodings else size
        stream = BodyStream(response, self._reactor, self._stall, size, 0, validator)
        try:
            return await decoded(stream, encodings, name_of(url), self._threads)
        except BaseException:
            await stream.close()
            raise

    def _check_whole(self, response: IResponse, url: DecodedURL, size: int | None = None) -> None:
        """Raise an error unless an answer to a request without a range has a whole file.

        :param size: known size of the file in bytes, or None.
        """
        if response.code in _MISSING:
            raise ImageNotFound(url.to_text())
        self._requests.check_passing(response, url.host)
        if not is_whole(response, size, ranged=False):
            raise SourceRefused(f"{url.host} answers {response.code}.")


def _continues(stream: IImageStream, image: Image, offset: int, validator: str | None) -> bool:
    """Tell whether the stream of a mirror surely continues the image at ``offset``.

    With a stated digest, the digest finally decides about the bytes.

    :param validator: the validator of the bytes before ``offset``, or None.
    """
    wanted = _proof(image.digest) or validator or image.validator
    same_size = None in (stream.size, image.size_bytes) or stream.size == image.size_bytes
    same = wanted is not None and stream.validator == wanted
    return stream.offset == offset and same and same_size


def _refuse_page(response: IResponse, image: Image, url: DecodedURL, *, same: bool = True) -> None:
    """Refuse a web page for people, from a proxy or a portal.

    :param same: whether the answer has the image's validator or needs none.  (Some servers state
        the content type of a page for everything.)
    :raises SourceFailed: for a page.
    """
    kinds = response.headers.getRawHeaders(b"content-type") or [b""]
    length = length_of(response)
    short = not same if length is None else length < _LONGEST_PAGE and length != image.size_bytes
    whole = is_whole(response, None, ranged=False)
    if short and whole and kinds[0].lower().startswith(b"text/html"):
        stop(response)
        raise SourceFailed(f"{url.host} answers with a page instead of the image.")


def _proof(digest: Digest | None) -> str | None:
    """Return the digest as the validator of an image; None without a stated digest."""
    return None if digest is None else f"{digest.algorithm}:{digest.value}"
