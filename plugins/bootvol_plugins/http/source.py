"""Asks servers for images, and follows redirects no further than allowed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from hyperlink import DecodedURL
from OpenSSL.SSL import Error as SSLError
from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.ssl import Certificate, trustRootFromCertificates
from twisted.python.failure import Failure
from twisted.web.client import (
    Agent,
    BrowserLikePolicyForHTTPS,
    ResponseFailed,
    ResponseNeverReceived,
)
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IAgent, IBodyProducer, IPolicyForHTTPS, IResponse
from zope.interface import implementer

from bootvol.errors import (
    ConfigurationError,
    ImageNotFound,
    InvalidImageRef,
    SourceFailed,
    SourceRefused,
)
from bootvol.interfaces import IImageSource, IImageStream
from bootvol.model import Caller, Digest, Image
from bootvol_plugins.http.addresses import AddressPolicy, CheckedEndpoints
from bootvol_plugins.http.checksums import LISTS, LONGEST, find_digest
from bootvol_plugins.http.options import HttpOptions
from bootvol_plugins.http.proxy import ProxiedAgent
from bootvol_plugins.http.ranges import rest, retry_after, size_of_rest, validator_of
from bootvol_plugins.http.stream import BodyStream, Unwanted
from bootvol_plugins.http.urls import Refused, lies_under, parse, to_ask

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS: Final = 5
_CERTIFICATE: Final = re.compile(
    rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL
)
#: Servers that answer HEAD so may still answer GET.
_NO_HEAD: Final = frozenset({403, 405, 501})


#: Refusals that pass.
_PASSING: Final = frozenset({408, 425, 429})


@implementer(IImageSource)
class HttpSource:
    """An image is its URL.

    :param name: what the operator calls this source.
    :param options: what the operator says of it.
    """

    def __init__(self, name: str, options: HttpOptions, reactor: Any) -> None:
        self.name = name
        self._allow = [parse(prefix) for prefix in options.allow]
        self._timeout = options.timeout
        self._stall = options.stall
        self._checksums = options.checksums
        self._reactor = reactor
        self._through = " through the proxy" if options.proxy else ""
        tls = BrowserLikePolicyForHTTPS(_authorities(options.ca) if options.ca else None)
        self._agent = _PlainAgent(_agent(name, options, reactor, tls, self._allow))

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
        _stop(response)
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
            length = await stream.read_into(memoryview(text))
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
            _stop(response)
        return await self._whole(url)

    async def _whole(self, url: DecodedURL) -> BodyStream:
        """Open what is at ``url`` from its first byte."""
        return self._opened(await self._ask("GET", url), url)

    def _opened(self, response: IResponse, url: DecodedURL) -> BodyStream:
        try:
            self._check_found(response, url)
        except Exception:
            _stop(response)
            raise
        return BodyStream(
            response, self._reactor, self._stall, _length(response), 0, validator_of(response)
        )

    def _check_found(self, response: IResponse, url: DecodedURL) -> None:
        if response.code in {404, 410}:
            raise ImageNotFound(url.to_text())
        now = self._reactor.seconds()
        if response.code in _PASSING or response.code >= 500:
            raise SourceFailed(f"{url.host} answers {response.code}.", retry_after(response, now))
        if response.code != 200:
            raise SourceRefused(f"{url.host} answers {response.code}.")

    async def _ask(self, method: str, url: DecodedURL, headers: Headers | None = None) -> IResponse:
        """Send a request, and again wherever a redirect leads that is allowed too."""
        for _ in range(_MOST_REDIRECTS + 1):
            response = await self._request(method, url, headers)
            if response.code not in _REDIRECTS:
                return response
            _stop(response)
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

    async def _request(self, method: str, url: DecodedURL, headers: Headers | None) -> IResponse:
        # A client of its own for each: no cookie of one tenant's request reaches another's.
        client = HTTPClient(self._agent)
        asked = client.request(
            method,
            to_ask(url),
            headers=headers,
            allow_redirects=False,
            unbuffered=True,
        )
        # Not treq's own timeout: what that raises cannot be told from a cancellation.
        asked.addTimeout(self._timeout, self._reactor, self._timed_out)
        try:
            return await _cancellable(asked)
        except (ConnectError, DNSLookupError, ResponseNeverReceived, ResponseFailed) as error:
            raise SourceFailed(
                f"{url.host} cannot be reached{self._through}: {_why(error)}."
            ) from error

    def _timed_out(self, _result: object, timeout: float) -> IResponse:
        raise SourceFailed(f"The server did not answer{self._through} within {timeout:g} seconds.")


@implementer(IAgent)
class _PlainAgent:
    """Asks for bodies as they are: a compressed transfer could swell without bound in memory."""

    def __init__(self, agent: IAgent) -> None:
        self._agent = agent

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """See :meth:`twisted.web.iweb.IAgent.request`."""
        plain = Headers(dict((headers or Headers()).getAllRawHeaders()))
        plain.setRawHeaders(b"accept-encoding", [b"identity"])
        return self._agent.request(method, uri, plain, bodyProducer).addCallback(_refuse_encoded)


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
    agent: IAgent = Agent.usingEndpointFactory(reactor, endpoints)
    return agent


def _authorities(path: Path) -> Any:
    """Read the certificates of a PEM file; blocks, so only when the daemon is put together.

    :raises ConfigurationError: there are none in it.
    """
    try:
        parts = _CERTIFICATE.findall(path.read_bytes())
        certificates = [Certificate.loadPEM(part) for part in parts]
    except (OSError, SSLError) as error:
        raise ConfigurationError(f"ca: {path}: {error}") from error
    if not certificates:
        raise ConfigurationError(f"ca: {path}: there is no certificate in it")
    return trustRootFromCertificates(certificates)


def _cancellable(asked: Deferred[Any]) -> Deferred[IResponse]:
    """Return ``asked`` so that cancelling it ends in CancelledError.

    The agent's own Deferred may end in whatever failed because of that.
    """
    cancelled = False

    def cancel(_answer: Deferred[IResponse]) -> None:
        nonlocal cancelled
        cancelled = True
        asked.cancel()

    def deliver(result: IResponse | Failure) -> None:
        if not cancelled:
            answer.callback(result)
        elif not isinstance(result, Failure):
            _stop(result)

    answer: Deferred[IResponse] = Deferred(cancel)
    asked.addBoth(deliver)
    return answer


def _refuse_encoded(response: IResponse) -> IResponse:
    encodings = response.headers.getRawHeaders(b"content-encoding") or []
    encoded = any(each.strip().lower() not in {b"", b"identity"} for each in encodings)
    if encoded and response.code in {200, 206}:
        _stop(response)
        raise SourceFailed("The server sends the image encoded though it was asked not to.")
    return response


def _length(response: IResponse) -> int | None:
    return None if response.length is UNKNOWN_LENGTH else int(response.length)


def _announced(response: IResponse) -> int | None:
    """Return the length that the answer to HEAD gives; there it is a header like others."""
    values = response.headers.getRawHeaders(b"content-length") or []
    plausible = len(values) == 1 and values[0].isdigit() and len(values[0]) <= 18
    return int(values[0]) if plausible else None


def _stop(response: IResponse) -> None:
    """Let go of a response whose body nobody wants."""
    response.deliverBody(Unwanted())


def _why(error: Exception) -> str:
    reasons = getattr(error, "reasons", None)
    return str(reasons[0].value) if reasons else str(error) or type(error).__name__
