"""Asks servers for images, and follows redirects no further than allowed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import attrs
from hyperlink import DecodedURL
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IAgent, IPolicyForHTTPS, IResponse
from zope.interface import implementer

from bootvol.errors import ImageNotFound, InvalidImageRef, SourceFailed, SourceRefused
from bootvol.interfaces import IImageSource, IImageStream
from bootvol.model import Caller, Digest, Image
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

#: As many as curl follows.
_MOST_REDIRECTS: Final = 50
#: Those may take so many times as long as one answer.
_ALL_ANSWERS: Final = 3
#: Answers that have no file in them, or a part, though they are of success.
_NOT_WHOLE: Final = frozenset({204, 205, 206})
_MISSING: Final = frozenset({404, 410})
#: The most bytes of a page that is sent in the place of an image.
_LONGEST_PAGE: Final = 1024 * 1024
#: The part that is asked for to learn of an image: HEAD is what servers get wrong.
_FIRST_BYTE: Final = Headers({"Range": ["bytes=0-0"]})


@implementer(IImageSource)
class HttpSource:
    """An image is its URL.

    :param name: what the operator calls this source.
    :param options: what the operator says of it.
    :param threads: for blocking calls.
    """

    def __init__(self, name: str, options: HttpOptions, reactor: Any, threads: Threads) -> None:
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
        """See :meth:`bootvol.interfaces.IImageSource.images`: the web has no list."""
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
            # Perhaps another source knows it, or the id at its end.
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
        """Return an image's size and validator, as far as its server states them."""
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
            # These may be of the encoded bytes.
            return None, None
        return part.size if part is not None else _length(response), validator_of(response)

    async def open(
        self, image: Image, offset: int = 0, validator: str | None = None
    ) -> IImageStream:
        """See :meth:`bootvol.interfaces.IImageSource.open`."""
        url = parse(image.id)
        if not lies_under(url, self._allow):
            raise SourceRefused("The operator no longer allows images from there.")
        if not offset or not validator:
            return await self._opened(await self._ask(url), url, image)
        # With a stated digest that decides in the end whether the parts are of one image: its
        # server need not know them by a validator, and may be another mirror each time.
        condition = None if validator == _proof(image.digest) else validator
        response = await self._asked_for_rest(url, offset, condition)
        if response is None or not (part_of(response) or _is_whole(response)):
            # It knows no parts, or there is none like this: it may have the whole.
            if response is not None:
                stop(response)
            response = await self._ask(url)
        same = condition is None or validator_of(response) == condition
        if _is_page(response, image, same):
            stop(response)
            raise SourceFailed(f"{url.host} answers with a page in the place of the image.")
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
        """Return the answer to the question for what follows ``offset``; None if there is none.

        :param condition: the validator that the image must still have.
        """
        at = offset
        try:
            response = await self._ask(url, rest(at, condition))
            if is_at_end(response, offset):
                # Of the last byte it says more.
                stop(response)
                at -= 1
                response = await self._ask(url, rest(at, condition))
            if (
                condition is not None
                and _is_whole(response)
                and validator_of(response) == condition
                and states_ranges(response)
            ):
                # The same image, so the condition held: it is If-Range that this server does not
                # know.
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
        """Return what an answer has of an image: all of it."""
        validator = _proof(image.digest) or validator_of(response)
        # A body without a length ends with the connection: that the size is right shows its end.
        expected = image.size_bytes if validator == image.validator else None
        return await _not_less(await self._whole(response, url, validator, expected), image)

    async def _whole(
        self,
        response: IResponse,
        url: DecodedURL,
        validator: str | None,
        expected: int | None = None,
    ) -> IImageStream:
        """Return what an answer has of a file, decoded if need be.

        :param expected: the size of the file in bytes, if it is still the one that was found.
        """
        try:
            self._check_whole(response, url)
            encoding = encoding_of(response)
        except Exception:
            stop(response)
            raise
        size = _length(response)
        # Of what is encoded nothing tells the size.
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
        """See that an answer has the whole of a file."""
        if response.code in _MISSING:
            raise ImageNotFound(url.to_text())
        self._client.check_passing(response, url.host)
        if response.code == 206 and not response.headers.hasHeader(b"content-range"):
            # Nobody asked for a part.
            return
        if not _is_whole(response):
            raise SourceRefused(f"{url.host} answers {response.code}.")

    async def _ask(self, url: DecodedURL, headers: Headers | None = None) -> IResponse:
        """Send a request, and again wherever a redirect leads that is allowed too."""
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
            raise SourceRefused(f"{url.host} redirects to what is no URL.") from None
        if not lies_under(target, self._allow):
            where = target.replace(query=()).to_text()
            raise SourceRefused(f"{url.host} redirects to {where}, which is not allowed.")
        return target


def _agent(
    name: str,
    options: HttpOptions,
    reactor: Any,
    tls: IPolicyForHTTPS,
    allow: Sequence[DecodedURL],
) -> IAgent:
    """Return what connects, as far as addresses are allowed."""
    policy = AddressPolicy.of(options.networks, allow)
    if options.proxy is not None:
        return ProxiedAgent(reactor, options.proxy, policy, tls, options.timeout)
    endpoints = CheckedEndpoints(reactor, policy, tls, options.timeout, name)
    return DirectAgent(reactor, endpoints)


def _is_whole(response: IResponse) -> bool:
    """Tell whether an answer has a file as a whole, as curl takes it."""
    part = part_of(response)
    if part is not None:
        return part.is_all
    return 200 <= response.code < 300 and response.code not in _NOT_WHOLE


def _fitting(response: IResponse, image: Image, offset: int) -> Part | None:
    """Return the part that an answer has, if what follows ``offset`` can be read of it."""
    try:
        encoded = encoding_of(response) is not None
    except SourceRefused:
        encoded = True
    part = part_of(response)
    if part is None:
        part = Part(0, 0, _length(response)) if _is_whole(response) else None
    elif part.size is None:
        # Without a size only a digest shows that it goes up to the end.
        known = image.size_bytes is not None or image.digest is not None
        part = attrs.evolve(part, size=image.size_bytes) if known else None
    return part if part is not None and not encoded and part.start <= offset else None


async def _not_less(stream: IImageStream, image: Image) -> IImageStream:
    """Return a stream whose server does not state fewer bytes of the same image than before.

    A proxy may have kept only a part of the image, and gives it out with the whole one's validator.
    More bytes are no fault: a server may have stated the length of the first byte as the image's.
    With a stated digest the digest decides.

    :raises SourceFailed: it does; the stream is closed.
    """
    same = stream.validator is not None and stream.validator == image.validator
    stated = image.size_bytes if same and image.digest is None else None
    if stated is not None and stream.size is not None and stream.size < stated:
        await stream.close()
        raise SourceFailed(
            f"The server states {stream.size} bytes of the image now, and stated {stated} before."
        )
    return stream


def _is_page(response: IResponse, image: Image, same: bool) -> bool:
    """Tell whether an answer is a page for people, as a proxy or a portal sends one.

    :param same: whether the answer has the image's validator, or needs none. (There are servers
        that call everything a page.)
    """
    kinds = response.headers.getRawHeaders(b"content-type") or [b""]
    length = _length(response)
    short = not same if length is None else length < _LONGEST_PAGE and length != image.size_bytes
    return short and _is_whole(response) and kinds[0].lower().startswith(b"text/html")


def _location(response: IResponse) -> str | None:
    """Return where an answer redirects to; None if it does not (RFC 9110, section 15.4).

    Without the header it is an answer like others, as to curl.
    """
    values = response.headers.getRawHeaders(b"location") or []
    if not 300 <= response.code < 400 or response.code == 304 or not any(values):
        return None
    try:
        return str(values[0], "utf-8")
    except UnicodeDecodeError:
        return str(values[0], "latin-1")


def _proof(digest: Digest | None) -> str | None:
    """Return a validator for images with a stated digest: nothing else need tell them apart."""
    return None if digest is None else f"{digest.algorithm}:{digest.value}"


def _length(response: IResponse) -> int | None:
    return None if response.length is UNKNOWN_LENGTH else int(response.length)
