"""Sends requests whose answers are pulled: what sources have in common that speak HTTP."""

from __future__ import annotations

import re
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from OpenSSL.SSL import Error as SSLError
from service_identity import VerificationError
from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectionClosed, DNSLookupError
from twisted.internet.ssl import Certificate, trustRootFromCertificates
from twisted.python.failure import Failure
from twisted.web._newclient import ParseError  # it has no public name
from twisted.web.client import (
    BrowserLikePolicyForHTTPS,
    RequestTransmissionFailed,
    ResponseFailed,
    ResponseNeverReceived,
)
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IPolicyForHTTPS, IResponse
from zope.interface import implementer

from bootvol import reading
from bootvol.errors import ConfigurationError, SourceFailed
from bootvol_plugins.http.hosts import AnyHost
from bootvol_plugins.http.ranges import may_pass, retry_after
from bootvol_plugins.http.stream import Unwanted

_CERTIFICATE: Final = re.compile(
    rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL
)
_NO_CONNECTION: Final = (ConnectError, DNSLookupError)
_NO_ANSWER: Final = (
    RequestTransmissionFailed,
    ResponseNeverReceived,
    ResponseFailed,
)
#: Some servers refuse clients that do not say who they are.
_USER_AGENT: Final = f"bootvol/{version('bootvol')}".encode()
#: Where an answer's Content-Encoding is found: under its own name treq would act on it.
ENCODING: Final = b"x-bootvol-content-encoding"


class Client:
    """Asks, and follows no redirects.

    :param agent: connects, and makes no more of a URL than it is.
    :param reactor: its clock.
    :param timeout: seconds that a server may take to begin its answer.
    :param through: how it is reached, for messages; begins with a space.
    :param encoded: answers with a Content-Encoding are given to the caller, who looks at the header
        :data:`ENCODING`; without it they are refused.
    """

    def __init__(
        self,
        agent: IAgent,
        reactor: Any,
        timeout: float,
        through: str = "",
        *,
        encoded: bool = False,
    ) -> None:
        self._agent = _PlainAgent(agent, encoded)
        self._reactor = reactor
        self._timeout = timeout
        self._through = through

    async def request(
        self,
        method: str,
        url: Any,
        host: str,
        headers: Headers | None = None,
        data: bytes | None = None,
    ) -> IResponse:
        """Send a request; the body of its answer is not yet delivered to anyone.

        :param url: as treq takes it.
        :param host: what messages call the server.
        :raises SourceFailed: there is no answer; see :func:`is_unanswered`.
        """
        # A client of its own for each: no cookie of one tenant's request reaches another's.
        client = HTTPClient(self._agent)
        asked = client.request(
            method, url, headers=headers, data=data, allow_redirects=False, unbuffered=True
        )
        # Not treq's own timeout: what that raises cannot be told from a cancellation.
        asked.addTimeout(self._timeout, self._reactor, self._timed_out)
        try:
            return await _cancellable(asked)
        except (*_NO_CONNECTION, *_NO_ANSWER) as error:
            raise SourceFailed(
                f"{host} cannot be reached{self._through}: {_why(error)}."
            ) from error

    def check_passing(self, response: IResponse, host: str) -> None:
        """Raise for an answer that another try may better.

        :raises SourceFailed: it is one.
        """
        if may_pass(response.code):
            pause = retry_after(response, time.time())
            raise SourceFailed(f"{host} answers {response.code}.", pause)

    def _timed_out(self, result: object, timeout: float) -> IResponse:
        if isinstance(result, Failure) and result.check(SourceFailed):
            # What it waited for is known better.
            result.raiseException()
        raise SourceFailed(f"The server did not answer{self._through} within {timeout:g} seconds.")


def trusting(authorities: Path | None) -> IPolicyForHTTPS:
    """Return what says whom to trust in https; blocks, so only when the daemon is put together.

    :param authorities: a PEM file of them; None is the system's.
    :raises ConfigurationError: there are none in it.
    """
    trusted = None if authorities is None else _authorities(authorities)
    return AnyHost(BrowserLikePolicyForHTTPS(trusted))


def is_unanswered(error: SourceFailed) -> bool:
    """Tell whether a server took a request and closed the connection, or answered in no HTTP.

    Another request it may answer.
    """
    reasons = getattr(error.__cause__, "reasons", [])
    return any(each.check(ConnectionClosed, ParseError, ValueError) for each in reasons)


def stop(response: IResponse) -> None:
    """Let go of a response whose body nobody wants."""
    response.deliverBody(Unwanted())


@implementer(IAgent)
class _PlainAgent:
    """Asks for bodies as they are: a compressed transfer could swell without bound in memory."""

    def __init__(self, agent: IAgent, encoded: bool) -> None:
        self._agent = agent
        self._look = _set_encoding_aside if encoded else _refuse_encoded

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
        plain.setRawHeaders(b"user-agent", [_USER_AGENT])
        if not plain.hasHeader(b"accept"):
            plain.setRawHeaders(b"accept", [b"*/*"])
        return self._agent.request(method, uri, plain, bodyProducer).addCallback(self._look)


def _authorities(path: Path) -> Any:
    try:
        parts = _CERTIFICATE.findall(reading.content(path))
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
            stop(result)

    answer: Deferred[IResponse] = Deferred(cancel)
    asked.addBoth(deliver)
    return answer


def _set_encoding_aside(response: IResponse) -> IResponse:
    encodings = response.headers.getRawHeaders(b"content-encoding") or []
    response.headers.removeHeader(b"content-encoding")
    response.headers.setRawHeaders(ENCODING, encodings)
    return response


def _refuse_encoded(response: IResponse) -> IResponse:
    encodings = response.headers.getRawHeaders(b"content-encoding") or []
    encoded = any(each.strip().lower() not in {b"", b"identity"} for each in encodings)
    if encoded and response.code in {200, 206}:
        stop(response)
        raise SourceFailed("The server sends the image encoded though it was asked not to.")
    return response


def _why(error: Exception) -> str:
    reasons = getattr(error, "reasons", None)
    if reasons and reasons[0].check(KeyError):
        # Twisted looks up what decodes a body.
        return f"it sends a transfer encoding that is not known, {reasons[0].value}"
    if reasons and reasons[0].check(VerificationError):
        return "its certificate is for other names"
    return str(reasons[0].value) if reasons else str(error) or type(error).__name__
