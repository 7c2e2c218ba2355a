"""Through a forward proxy: absolute URIs for http, tunnels for https (RFC 9110, section 9.3.6)."""

from __future__ import annotations

import re
from typing import Any, Final, cast

from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.interfaces import (
    IAddress,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import URI
from twisted.web.http_headers import Headers
from twisted.web.iweb import (
    IAgent,
    IAgentEndpointFactory,
    IBodyProducer,
    IPolicyForHTTPS,
    IResponse,
)
from zope.interface import implementer

from bootvol.errors import SourceFailed, SourceRefused
from bootvol_plugins.http.addresses import AddressPolicy, refusal
from bootvol_plugins.http.direct import DirectAgent
from bootvol_plugins.http.hosts import HostEndpoint
from bootvol_plugins.http.ranges import may_pass
from bootvol_plugins.http.stream import Unwanted
from bootvol_plugins.http.urls import parse_proxy

_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([2-5]\d\d)(?: [^\r\n]*)?")
#: The longest answer to CONNECT that is read, in bytes.
_LONGEST: Final = 16 * 1024
_CREDENTIALS: Final = "The proxy wants credentials, and has none from here."


@implementer(IAgent, IAgentEndpointFactory)
class ProxiedAgent:
    """Sends every request by way of one proxy, which resolves the names.

    :param proxy: its URL, found right.
    :param policy: for hosts that are addresses; what names lead to is the proxy's to judge.
    :param tls: who https servers, at the end of the tunnels, are trusted by.
    :param timeout: seconds that each address of the proxy may take to connect.
    """

    def __init__(
        self,
        reactor: Any,
        proxy: str,
        policy: AddressPolicy,
        tls: IPolicyForHTTPS,
        timeout: float,
    ) -> None:
        host, port = parse_proxy(proxy)
        self._policy = policy
        self._tls = tls
        self._proxy = _ProxyEndpoint(HostEndpoint(reactor, host, port, timeout))
        self._plain = DirectAgent(reactor, self, by_proxy=True)
        self._tunnelled = DirectAgent(reactor, self)

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """See :meth:`twisted.web.iweb.IAgent.request`."""
        parsed = URI.fromBytes(uri)
        host = parsed.host.decode("ascii")
        if not self._policy.allows_unresolved(host):
            return fail(refusal(host))
        if parsed.scheme != b"http":
            return self._tunnelled.request(method, uri, headers, bodyProducer)
        asked = self._plain.request(method, uri, headers, bodyProducer)
        return asked.addCallback(_check_credentials)

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """See :meth:`twisted.web.iweb.IAgentEndpointFactory.endpointForURI`."""
        if uri.scheme == b"http":
            return self._proxy
        tunnel = TunnelEndpoint(self._proxy, uri.host, uri.port)
        return wrapClientTLS(self._tls.creatorForNetloc(uri.host, uri.port), tunnel)


@implementer(IStreamClientEndpoint)
class _ProxyEndpoint:
    """Connects to the proxy, and says so when it is the proxy that cannot be reached."""

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """See :meth:`twisted.internet.interfaces.IStreamClientEndpoint.connect`."""
        return self._endpoint.connect(protocolFactory).addErrback(_unreachable)


@implementer(IStreamClientEndpoint)
class TunnelEndpoint:
    """Connects to a host through a tunnel that a proxy opens.

    :param proxy: connects to the proxy.
    :param host: a name or an address, without brackets.
    """

    def __init__(self, proxy: IStreamClientEndpoint, host: bytes, port: int) -> None:
        self._proxy = proxy
        self._authority = b"%b:%d" % (b"[%b]" % host if b":" in host else host, port)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """See :meth:`twisted.internet.interfaces.IStreamClientEndpoint.connect`.

        :raises SourceFailed: the proxy cannot be reached, or does not open the tunnel now.
        :raises SourceRefused: the proxy does not open tunnels to there.
        """
        connecting: Deferred[Any] = self._proxy.connect(_TunnelFactory(protocolFactory))
        return connecting.addCallback(lambda tunnel: tunnel.open(self._authority))


class _TunnelFactory(Factory):
    """Makes tunnels with a protocol at their end."""

    noisy = False

    def __init__(self, inner: IProtocolFactory) -> None:
        self._inner = inner

    def buildProtocol(self, address: IAddress | None) -> Protocol | None:
        inner = self._inner.buildProtocol(cast("IAddress", address))
        return None if inner is None else _Tunnel(inner)


class _Tunnel(Protocol):
    """Asks for a tunnel; once it is open, stands aside for the protocol at its end."""

    def __init__(self, inner: IProtocol) -> None:
        self._inner = inner
        self._head = b""
        self._opening: Deferred[IProtocol] | None = None
        self._open = False

    def open(self, authority: bytes) -> Deferred[IProtocol]:
        """Ask for the tunnel; the result is the protocol at its end, connected."""
        transport: Any = self.transport
        self._opening = Deferred(lambda _opening: self._give_up())
        opening = self._opening
        transport.write(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (authority, authority))
        return opening

    def dataReceived(self, data: bytes) -> None:
        """Bytes have come from the proxy, or through it."""
        if self._open:
            self._inner.dataReceived(data)
        elif self._opening is not None:
            self._head += data
            self._read_head(self._opening)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The proxy has gone, or the host at the tunnel's end."""
        if self._open:
            self._inner.connectionLost(reason)
        elif self._opening is not None:
            opening, self._opening = self._opening, None
            opening.errback(SourceFailed("The proxy closed the connection without an answer."))

    def _read_head(self, opening: Deferred[IProtocol]) -> None:
        """Read what the proxy answers, as far as it has come."""
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if not end and len(head) <= _LONGEST and b"HTTP/1."[: len(head)] == head[:7]:
            return
        status = _STATUS.fullmatch(head.partition(b"\r\n")[0]) if end else None
        refused = _refused(int(status[1]) if status else None)
        if refused is not None:
            self._give_up()
            opening.errback(refused)
            return
        self._open, self._opening, self._head = True, None, b""
        self._inner.makeConnection(self.transport)  # type: ignore[arg-type]
        opening.callback(self._inner)
        if rest:
            self._inner.dataReceived(rest)

    def _give_up(self) -> None:
        self._opening = None
        transport: Any = self.transport
        transport.abortConnection()


def _refused(code: int | None) -> Exception | None:
    """Return what a proxy's answer to CONNECT means, None where it opens the tunnel."""
    if code is None:
        return SourceFailed("The proxy answers what is not HTTP.")
    if code < 300:
        return None
    if code == 407:
        return SourceRefused(_CREDENTIALS)
    kind = SourceFailed if may_pass(code) else SourceRefused
    return kind(f"The proxy answers {code}.")


def _check_credentials(response: IResponse) -> IResponse:
    """Of all answers only this one is known to be the proxy's own."""
    if response.code == 407:
        response.deliverBody(Unwanted())
        raise SourceRefused(_CREDENTIALS)
    return response


def _unreachable(failure: Failure) -> Failure:
    if failure.check(ConnectError, DNSLookupError):
        raise SourceFailed(f"The proxy cannot be reached: {failure.value}.") from failure.value
    return failure
