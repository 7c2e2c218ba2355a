"""Asks servers for images, and follows redirects no further than allowed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from hyperlink import DecodedURL
from twisted.internet.defer import ensureDeferred
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IAgent, IPolicyForHTTPS, IResponse
from zope.interface import implementer

from bootvol.errors import ImageNotFound, InvalidImageRef, SourceFailed, SourceRefused
from bootvol.interfaces import IImageSource, IImageStream
from bootvol.model import Caller, Digest, Image
from bootvol_plugins.http.addresses import AddressPolicy, CheckedEndpoints
from bootvol_plugins.http.checksums import LISTS, LONGEST, find_digest
from bootvol_plugins.http.client import Client, stop, trusting
from bootvol_plugins.http.direct import DirectAgent
from bootvol_plugins.http.options import HttpOptions
from bootvol_plugins.http.proxy import ProxiedAgent
from bootvol_plugins.http.ranges import rest, size_of_rest, validator_of
from bootvol_plugins.http.stream import BodyStream
from bootvol_plugins.http.urls import Refused, lies_under, parse, to_ask

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS: Final = 5
#: Servers that answer HEAD so may still answer GET.
_NO_HEAD: Final = frozenset({403, 405, 501})


@implementer(IImageSource)
class HttpSource:
    """An image is its URL.

    :param name: what the operator calls this source.
    :param options: what the operator says of it.
    """

    def __init__(self, name: str, options: HttpOptions, reactor: Any) -> None:
        self.name = name
        self._allow = [parse(prefix) for prefix in options.allow]
        self._stall = options.stall
        self._checksums = options.checksums
        self._reactor = reactor
        agent = _agent(name, options, reactor, trusting(options.ca), self._allow)
        through = " through the proxy" if options.proxy else ""
        self._client = Client(agent, reactor, options.timeout, through)

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
        if not url.path or not url.path[-1]:
            raise ImageNotFound(reference)
        response = await self._ask("HEAD", url)
        stop(response)
        if response.code not in _NO_HEAD:
            self._check_found(response, url)
        return Image(
            id=url.to_text(),
            source=self.name,
            name=url.path[-1],
            size_bytes=_announced(response) if response.code == 200 else None,
            digest=await self._stated(url, self._checksums) if self._checksums else None,
            validator=validator_of(response) if response.code == 200 else None,
        )

    async def _stated(self, url: DecodedURL, checksums: str) -> Digest:
        """Return the digest that the list beside an image states for it."""
        beside = url.replace(path=(*url.path[:-1], checksums), query=())
        if not lies_under(beside, self._allow):
            raise SourceRefused(f"{checksums} beside the image is not allowed to be read.")
        stream = await self._whole(beside)
        try:
            text = bytearray(LONGEST)
            # Somebody waits for the answer to a request meanwhile.
            reading = ensureDeferred(stream.read_into(memoryview(text)))
            length = await reading.addTimeout(self._stall, self._reactor, _took_long)
        finally:
            await stream.close()
        algorithm = LISTS[checksums]
        found = find_digest(text[:length].decode("utf-8", "replace"), algorithm, url.path[-1])
        if found is None:
            raise SourceRefused(f"{checksums} on {url.host} does not list the image.")
        return found

    async def open(
        self, image: Image, offset: int = 0, validator: str | None = None
    ) -> IImageStream:
        """See :meth:`bootvol.interfaces.IImageSource.open`."""
        url = parse(image.id)
        if not lies_under(url, self._allow):
            raise SourceRefused("The operator no longer allows images from there.")
        if offset and validator:
            response = await self._ask("GET", url, rest(offset, validator))
            size = size_of_rest(response, offset, validator)
            if size is not None:
                return BodyStream(response, self._reactor, self._stall, size, offset, validator)
            if response.code == 200:
                return self._opened(response, url)
            stop(response)
        return await self._whole(url)

    async def _whole(self, url: DecodedURL) -> BodyStream:
        """Open what is at ``url`` from its first byte."""
        return self._opened(await self._ask("GET", url), url)

    def _opened(self, response: IResponse, url: DecodedURL) -> BodyStream:
        try:
            self._check_found(response, url)
        except Exception:
            stop(response)
            raise
        return BodyStream(
            response, self._reactor, self._stall, _length(response), 0, validator_of(response)
        )

    def _check_found(self, response: IResponse, url: DecodedURL) -> None:
        if response.code in {404, 410}:
            raise ImageNotFound(url.to_text())
        self._client.check_passing(response, url.host)
        if response.code != 200:
            raise SourceRefused(f"{url.host} answers {response.code}.")

    async def _ask(self, method: str, url: DecodedURL, headers: Headers | None = None) -> IResponse:
        """Send a request, and again wherever a redirect leads that is allowed too."""
        for _ in range(_MOST_REDIRECTS + 1):
            response = await self._client.request(method, to_ask(url), url.host, headers)
            if response.code not in _REDIRECTS:
                return response
            stop(response)
            url = self._redirected(response, url)
        raise SourceRefused(f"{url.host} redirects more than {_MOST_REDIRECTS} times.")

    def _redirected(self, response: IResponse, url: DecodedURL) -> DecodedURL:
        location = (response.headers.getRawHeaders(b"location") or [b""])[0]
        try:
            target = parse(url.click(location.decode("ascii")).to_text())
        except (Refused, ValueError, NotImplementedError):
            raise SourceRefused(f"{url.host} redirects to what is no URL.") from None
        if not lies_under(target, self._allow):
            raise SourceRefused(f"{url.host} redirects to {target.host}, which is not allowed.")
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


def _took_long(_result: object, timeout: float) -> int:
    raise SourceFailed(f"The list beside the image did not come within {timeout:g} seconds.")


def _length(response: IResponse) -> int | None:
    return None if response.length is UNKNOWN_LENGTH else int(response.length)


def _announced(response: IResponse) -> int | None:
    """Return the length that the answer to HEAD gives; there it is a header like others."""
    values = response.headers.getRawHeaders(b"content-length") or []
    plausible = len(values) == 1 and values[0].isdigit() and len(values[0]) <= 18
    return int(values[0]) if plausible else None
