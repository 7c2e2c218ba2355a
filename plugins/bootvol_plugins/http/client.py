"""An HTTP client for sources; readers pull the bodies of answers."""

from __future__ import annotations

import re
import time
from importlib.metadata import version
from pathlib import Path
from typing import Final, TypeVar

from hyperlink import URL, DecodedURL
from OpenSSL.SSL import Error as SSLError
from treq.client import HTTPClient
from twisted.internet._sslverify import IOpenSSLTrustRoot
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectionClosed, DNSLookupError
from twisted.internet.ssl import Certificate, trustRootFromCertificates
from twisted.logger import Logger
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
from bootvol.reactors import IReactor
from bootvol.sparing import FewLines
from bootvol_plugins.http.certificates import refused
from bootvol_plugins.http.heads import HeadTooLong, WrongLength
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
#: Faults of answers in HTTP.  Twisted raises KeyError for an unknown transfer encoding.
_UNREADABLE: Final = (WrongLength, KeyError, HeadTooLong)
#: Some servers refuse clients without a User-Agent.
_USER_AGENT: Final = f"bootvol/{version('bootvol')}".encode()
#: Values of Content-Encoding for bodies that are not encoded.
_PLAIN: Final = frozenset({b"", b"identity"})
#: The header with an answer's Content-Encoding. Under the original name treq would decode the body.
ENCODING: Final = b"x-bootvol-content-encoding"

Answer = TypeVar("Answer", bound=IResponse)


class Client:
    """An HTTP client that follows no redirects.

    :param agent: connects, and uses URLs unchanged.
    :param reactor: the clock.
    :param timeout: seconds for a server to begin its answer.
    :param through: the route to the server, for messages; begins with a space.
    :param encoded: whether answers may have a Content-Encoding.  If so, the caller reads the header
        :data:`ENCODING`; if not, encoded answers are refused.
    """

    _log = Logger()

    def __init__(
        self,
        agent: IAgent,
        reactor: IReactor,
        timeout: float,
        through: str = "",
        *,
        encoded: bool = False,
    ) -> None:
        self._agent = _PlainAgent(agent, encoded)
        self._reactor = reactor
        self._timeout = timeout
        self._through = through
        self._lines = FewLines(reactor, self._log, "refused certificates")

    async def request(
        self,
        method: str,
        url: URL | DecodedURL | str,
        host: str,
        headers: Headers | None = None,
        data: bytes | IBodyProducer | None = None,
        *,
        patient: bool = False,
    ) -> IResponse:
        """Send a request, and return the answer with its body not yet delivered.

        :param url: a URL for treq.
        :param patient: whether the caller itself limits the time until the answer begins: the
            answer comes after the data.
        :param host: the server's name in messages.
        :raises SourceFailed: if the server does not answer; see :func:`is_unanswered`.
        """
        # Each request has its own client, so that tenants do not share cookies.
        client = HTTPClient(self._agent)
        asked = client.request(
            method, url, headers=headers, data=data, allow_redirects=False, unbuffered=True
        )
        if not patient:
            # treq's own timeout would look like a cancellation.
            asked.addTimeout(self._timeout, self._reactor, self._timed_out)
        try:
            return await _cancellable(asked)
        except (*_NO_CONNECTION, *_NO_ANSWER) as error:
            reasons = getattr(error, "reasons", [])
            told = refused(reasons[0].value) if reasons else None
            if told is not None and self._lines.admit():
                self._log.warn(
                    "{host}{through}: {fault}. {remedy}",
                    host=host,
                    through=self._through,
                    fault=told[0],
                    remedy=told[1],
                )
            fault = f"{host} cannot be reached{self._through}"
            if reasons and reasons[0].check(*_UNREADABLE):
                fault = f"The answer of {host}{self._through} cannot be read"
            raise SourceFailed(f"{fault}: {why(error)}.") from error

    def check_passing(self, response: IResponse, host: str) -> None:
        """Raise an error for an answer with a temporary failure.

        :raises SourceFailed: if a retry may succeed.
        """
        if may_pass(response.code):
            pause = retry_after(response, time.time())
            raise SourceFailed(f"{host} answers {response.code}.", pause)

    def _timed_out(self, result: object, timeout: float) -> IResponse:
        if isinstance(result, Failure) and result.check(SourceFailed):
            # The earlier error is more precise.
            result.raiseException()
        raise SourceFailed(f"The server did not answer{self._through} within {timeout:g} seconds.")


def trusting(authorities: Path | None) -> IPolicyForHTTPS:
    """Return the policy for trust in https servers.  Blocks; call while the daemon starts.

    :param authorities: a PEM file of authorities; None for the system's authorities.
    :raises ConfigurationError: if the file is unreadable or has no certificates.
    """
    trusted = None if authorities is None else _authorities(authorities)
    return AnyHost(BrowserLikePolicyForHTTPS(trusted))


def is_unanswered(error: SourceFailed) -> bool:
    """Tell whether a server closed the connection after a request, or answered no valid HTTP.

    The server may answer another request.
    """
    reasons = getattr(error.__cause__, "reasons", [])
    return any(each.check(ConnectionClosed, ParseError, ValueError) for each in reasons)


def stop(response: IResponse) -> None:
    """Drop a response without reading its body."""
    response.deliverBody(Unwanted())


@implementer(IAgent)
class _PlainAgent:
    """An agent that requests unencoded bodies, because decoding could use unlimited memory."""

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


def _authorities(path: Path) -> IOpenSSLTrustRoot:
    try:
        parts = _CERTIFICATE.findall(reading.content(path))
        certificates = [Certificate.loadPEM(part) for part in parts]
    except (OSError, SSLError) as error:
        raise ConfigurationError(f"ca: {path}: {error}") from error
    if not certificates:
        raise ConfigurationError(f"ca: {path}: the file contains no certificate")
    root: IOpenSSLTrustRoot = trustRootFromCertificates(certificates)
    return root


def _cancellable(asked: Deferred[Answer]) -> Deferred[Answer]:
    """Return a Deferred like ``asked`` that ends in CancelledError after a cancellation.

    The agent's own Deferred may end in any error that the cancellation caused.
    """
    cancelled = False

    def cancel(_answer: Deferred[Answer]) -> None:
        nonlocal cancelled
        cancelled = True
        asked.cancel()

    def deliver(result: Answer | Failure) -> None:
        if not cancelled:
            answer.callback(result)
        elif not isinstance(result, Failure):
            stop(result)

    answer: Deferred[Answer] = Deferred(cancel)
    asked.addBoth(deliver)
    return answer


def _set_encoding_aside(response: IResponse) -> IResponse:
    encodings = response.headers.getRawHeaders(b"content-encoding") or []
    response.headers.removeHeader(b"content-encoding")
    response.headers.setRawHeaders(ENCODING, encodings)
    return response


def _refuse_encoded(response: IResponse) -> IResponse:
    encodings = b",".join(response.headers.getRawHeaders(b"content-encoding") or [])
    encoded = any(each.strip().lower() not in _PLAIN for each in encodings.split(b","))
    if encoded and response.code in {200, 206}:
        stop(response)
        raise SourceFailed(
            "The server sends the image encoded though bootvol asked for the plain image."
        )
    return response


def why(error: BaseException | None) -> str:
    """Return why a server or a proxy cannot be reached, for tenants: without names and bytes."""
    if isinstance(error, DNSLookupError):
        # Twisted's text has the name, which may be that of a machine inside.
        return "its name has no address"
    reasons = getattr(error, "reasons", None)
    if reasons and reasons[0].check(KeyError):
        # Twisted failed to look up a decoder for the body.
        return f"it sends a transfer encoding that is not known, {reasons[0].value}"
    if reasons and reasons[0].check(WrongLength):
        return str(reasons[0].value)
    if reasons and reasons[0].check(ParseError, ValueError):
        # Twisted's text has bytes of the answer, which another service than HTTP may have sent.
        return "its answer is not valid HTTP"
    told = refused(reasons[0].value) if reasons else None
    if told is not None:
        return told[0]
    if reasons and reasons[0].check(SSLError):
        return _tls_fault(reasons[0].value)
    return str(reasons[0].value) if reasons else str(error) or type(error).__name__


def _tls_fault(error: BaseException) -> str:
    """Return the texts of OpenSSL's errors, which pyOpenSSL keeps in a list of tuples."""
    errors = error.args[0] if error.args and isinstance(error.args[0], list) else []
    texts = [each[-1] for each in errors]
    if "wrong version number" in texts:
        return "it does not speak TLS at this port; the URL may have to begin with http://"
    return ", ".join(texts) or str(error) or type(error).__name__
