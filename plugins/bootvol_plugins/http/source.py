"""The http source: requests images, and follows only allowed redirects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs
from hyperlink import DecodedURL
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IAgent, IPolicyForHTTPS, IResponse
from zope.interface import implementer

from bootvol.errors import ImageNotFound, InvalidImageRef, SourceFailed, SourceRefused
from bootvol.interfaces import IImageSource, IImageStream
from bootvol.model import Caller, Digest, Image
from bootvol.reactors import IReactor
from bootvol.threads import Threads
from bootvol_plugins.http.addresses import AddressPolicy, CheckedEndpoints
from bootvol_plugins.http.client import Client, is_unanswered, stop, trusting
from bootvol_plugins.http.direct import DirectAgent
from bootvol_plugins.http.encodings import decoded, encoding_of
from bootvol_plugins.http.lists import Lists
from bootvol_plugins.http.options import HttpOptions
from bootvol_plugins.http.proxy import ProxiedAgent
from bootvol_plugins.http.ranges import (
    Part,
    is_at_end,
    part_of,
    rest,
    states_ranges,
    validator_of,
)
from bootvol_plugins.http.signatures import Keyring
from bootvol_plugins.http.stream import BodyStream
from bootvol_plugins.http.urls import Refused, joined, lies_under, name_of, parse, to_ask

#: Maximum number of redirects, the same as curl's limit.
_MOST_REDIRECTS: Final = 50
#: Time limit of all redirects together, in multiples of the time limit of one answer.
_ALL_ANSWERS: Final = 3
#: Success statuses without a file or with a part of a file.
_NOT_WHOLE: Final = frozenset({204, 205, 206})
_MISSING: Final = frozenset({404, 410})
#: Largest web page in bytes that counts as sent instead of an image.
_LONGEST_PAGE: Final = 1024 * 1024
#: The range of requests for size and validator, used instead of HEAD: servers get HEAD wrong.
_FIRST_BYTE: Final = Headers({"Range": ["bytes=0-0"]})


@implementer(IImageSource)
class HttpSource:
    """A source of images at URLs.  The URL is the image's id.

    :param name: the source's name in the configuration.
    :param options: the source's settings.
    :param threads: run blocking calls.
    """

    def __init__(
        self, name: str, options: HttpOptions, reactor: IReactor, threads: Threads
    ) -> None:
        self.name = name
        self._allow = [parse(prefix) for prefix in options.allow]
        self._stall = options.stall
        self._timeout = options.timeout
        self._reactor = reactor
        self._threads = threads
        agent = _agent(name, options, reactor, trusting(options.ca), self._allow)
        through = " through the proxy" if options.proxy else ""
        self._client = Client(agent, reactor, options.timeout, through, encoded=True)
        keyring = None if options.keyring is None else Keyring(options.keyring)
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
            response = await self._ask(url, _FIRST_BYTE)
        except SourceFailed as error:
            if not is_unanswered(error):
                raise
            response = await self._ask(url)
        part = part_of(response)
        first_byte = part is not None and not part.start and part.size is not None
        if not first_byte and not _is_whole(response):
            stop(response)
            response = await self._ask(url)
            part = part_of(response)
        stop(response)
        if part is None or part.start:
            self._check_whole(response, url)
        if encoding_of(response) is not None:
            # Size and validator may be those of the encoded bytes.
            return None, None
        return part.size if part is not None else _length(response), validator_of(response)

    async def open(
        self, image: Image, offset: int = 0, validator: str | None = None
    ) -> IImageStream:
        """See :meth:`bootvol.interfaces.IImageSource.open`."""
        url = parse(image.id)
        if not lies_under(url, self._allow):
            raise SourceRefused("The operator no longer allows images from this URL.")
        if not offset or not validator:
            return await self._opened(await self._ask(url), url, image)
        # With a stated digest, the digest finally shows whether the parts belong to one image. The
        # server then needs no validator, and may be another mirror each time.
        condition = None if validator == _proof(image.digest) else validator
        response = await self._asked_for_rest(url, offset, condition)
        if response is None or not (part_of(response) or _is_whole(response)):
            # The server may not support ranges, or not this range. Request the whole image.
            if response is not None:
                stop(response)
            response = await self._ask(url)
        same = condition is None or validator_of(response) == condition
        if _is_page(response, image, same):
            stop(response)
            raise SourceFailed(f"{url.host} answers with a page instead of the image.")
        part = _fitting(response, image, offset) if same else None
        if part is not None:
            skip = offset - part.start
            rest_of_it = BodyStream(
                response, self._reactor, self._stall, part.size, offset, validator, skip
            )
            return await _not_less(rest_of_it, image)
        if response.code == 206 or part_of(response) is not None:
            stop(response)
            response = await self._ask(url)
        return await self._opened(response, url, image)

    async def _asked_for_rest(
        self, url: DecodedURL, offset: int, condition: str | None
    ) -> IResponse | None:
        """Return the answer to a request for the rest from ``offset``; None without an answer.

        :param condition: the validator that the image must still have, or None.
        """
        at = offset
        try:
            response = await self._ask(url, rest(at, condition))
            if is_at_end(response, offset):
                # An answer with the last byte states more about the image.
                stop(response)
                at -= 1
                response = await self._ask(url, rest(at, condition))
            if (
                condition is not None
                and _is_whole(response)
                and validator_of(response) == condition
                and states_ranges(response)
            ):
                # The image is the same, so the condition was met: the server does not support
                # If-Range.
                stop(response)
                response = await self._ask(url, rest(at))
        except SourceFailed as error:
            if not is_unanswered(error):
                raise
            return None
        return response

    async def _list(self, url: DecodedURL) -> IImageStream:
        """Open a list of digests."""
        return await self._whole(await self._ask(url), url, None)

    async def _opened(self, response: IResponse, url: DecodedURL, image: Image) -> IImageStream:
        """Return a stream of the whole image in an answer."""
        validator = _proof(image.digest) or validator_of(response)
        # A body without a length ends with the connection. The right size shows a complete body.
        expected = image.size_bytes if validator == image.validator else None
        return await _not_less(await self._whole(response, url, validator, expected), image)

    async def _whole(
        self,
        response: IResponse,
        url: DecodedURL,
        validator: str | None,
        expected: int | None = None,
    ) -> IImageStream:
        """Return a stream of the whole file in an answer, decoded if necessary.

        :param expected: size of the file in bytes, if the file has not changed since the first
            look; None otherwise.
        """
        try:
            self._check_whole(response, url)
            encoding = encoding_of(response)
        except Exception:
            stop(response)
            raise
        size = _length(response)
        # The size of an encoded file is unknown.
        expected = expected if encoding is None else None
        stream = BodyStream(
            response, self._reactor, self._stall, size, 0, validator, expected=expected
        )
        if encoding is None:
            return stream
        try:
            return await decoded(stream, encoding, name_of(url), self._threads)
        except BaseException:
            await stream.close()
            raise

    def _check_whole(self, response: IResponse, url: DecodedURL) -> None:
        """Raise an error unless an answer has a whole file."""
        if response.code in _MISSING:
            raise ImageNotFound(url.to_text())
        self._client.check_passing(response, url.host)
        if response.code == 206 and not response.headers.hasHeader(b"content-range"):
            # No part was requested, so the answer is the whole file.
            return
        if not _is_whole(response):
            raise SourceRefused(f"{url.host} answers {response.code}.")

    async def _ask(self, url: DecodedURL, headers: Headers | None = None) -> IResponse:
        """Send a request, and follow allowed redirects."""
        late = self._reactor.seconds() + _ALL_ANSWERS * self._timeout
        for _ in range(_MOST_REDIRECTS + 1):
            response = await self._client.request("GET", to_ask(url), url.host, headers)
            location = _location(response)
            if location is None:
                return response
            stop(response)
            url = self._redirected(location, url)
            if self._reactor.seconds() > late:
                raise SourceRefused(f"{url.host} redirects for too long.")
        raise SourceRefused(f"{url.host} redirects more than {_MOST_REDIRECTS} times.")

    def _redirected(self, location: str, url: DecodedURL) -> DecodedURL:
        try:
            target = joined(url, location)
        except Refused:
            raise SourceRefused(f"{url.host} redirects to an invalid URL.") from None
        if not lies_under(target, self._allow):
            where = target.replace(query=()).to_text()
            raise SourceRefused(f"{url.host} redirects to {where}, which is not allowed.")
        return target


def _agent(
    name: str,
    options: HttpOptions,
    reactor: IReactor,
    tls: IPolicyForHTTPS,
    allow: Sequence[DecodedURL],
) -> IAgent:
    """Return the agent for requests, with the operator's policy for addresses."""
    policy = AddressPolicy.of(options.networks, allow)
    if options.proxy is not None:
        return ProxiedAgent(reactor, options.proxy, policy, tls, options.timeout)
    endpoints = CheckedEndpoints(reactor, policy, tls, options.timeout, name)
    return DirectAgent(reactor, endpoints)


def _is_whole(response: IResponse) -> bool:
    """Tell whether an answer has a whole file, by curl's rules."""
    part = part_of(response)
    if part is not None:
        return part.is_all
    return 200 <= response.code < 300 and response.code not in _NOT_WHOLE


def _fitting(response: IResponse, image: Image, offset: int) -> Part | None:
    """Return the part of the image in an answer; None if the rest from ``offset`` is not in it."""
    try:
        encoded = encoding_of(response) is not None
    except SourceRefused:
        encoded = True
    part = part_of(response)
    if part is None:
        part = Part(0, 0, _length(response)) if _is_whole(response) else None
    elif part.size is None:
        # Without a size, only a digest shows that the part reaches the end.
        known = image.size_bytes is not None or image.digest is not None
        part = attrs.evolve(part, size=image.size_bytes) if known else None
    return part if part is not None and not encoded and part.start <= offset else None


async def _not_less(stream: IImageStream, image: Image) -> IImageStream:
    """Return the stream, unless the server states fewer bytes of the same image than before.

    A caching proxy may hold only a part of the image, and send the part with the whole image's
    validator.  More bytes are no fault: a server may have stated the length of the first byte as
    the size of the image.  With a stated digest, the digest decides.

    :raises SourceFailed: if the server states fewer bytes; the stream is closed.
    """
    same = stream.validator is not None and stream.validator == image.validator
    stated = image.size_bytes if same and image.digest is None else None
    if stated is not None and stream.size is not None and stream.size < stated:
        await stream.close()
        raise SourceFailed(
            f"The server now states {stream.size} bytes for the image, but stated {stated} before."
        )
    return stream


def _is_page(response: IResponse, image: Image, same: bool) -> bool:
    """Tell whether an answer is a web page for people, from a proxy or a portal.

    :param same: whether the answer has the image's validator or needs none.  (Some servers state
        the content type of a page for everything.)
    """
    kinds = response.headers.getRawHeaders(b"content-type") or [b""]
    length = _length(response)
    short = not same if length is None else length < _LONGEST_PAGE and length != image.size_bytes
    return short and _is_whole(response) and kinds[0].lower().startswith(b"text/html")


def _location(response: IResponse) -> str | None:
    """Return the target of a redirect; None for other answers (RFC 9110, section 15.4).

    Without the header ``Location`` an answer is not a redirect, as in curl.
    """
    values = response.headers.getRawHeaders(b"location") or []
    if not 300 <= response.code < 400 or response.code == 304 or not any(values):
        return None
    try:
        return str(values[0], "utf-8")
    except UnicodeDecodeError:
        return str(values[0], "latin-1")


def _proof(digest: Digest | None) -> str | None:
    """Return the digest as the validator of an image; None without a stated digest."""
    return None if digest is None else f"{digest.algorithm}:{digest.value}"


def _length(response: IResponse) -> int | None:
    return None if response.length is UNKNOWN_LENGTH else int(response.length)
