"""Requests through a proxy: absolute URIs for http, tunnels for https (RFC 9110, section 9.3.6)."""

from __future__ import annotations

import re
from typing import Final, cast

from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.interfaces import (
    IAddress,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
    ITCPTransport,
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
from bootvol.reactors import IReactor
from bootvol_plugins.http.addresses import AddressPolicy, refusal
from bootvol_plugins.http.client import why
from bootvol_plugins.http.direct import DirectAgent
from bootvol_plugins.http.hosts import HostEndpoint
from bootvol_plugins.http.ranges import may_pass
from bootvol_plugins.http.stream import Unwanted
from bootvol_plugins.http.urls import parse_proxy

_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([2-5]\d\d)(?: [^\r\n]*)?")
#: Longest answer to CONNECT in bytes.
_LONGEST: Final = 16 * 1024
_CREDENTIALS: Final = "The proxy wants credentials, and has none from here."


@implementer(IAgent, IAgentEndpointFactory)
class ProxiedAgent:
    """An agent that sends all requests through one proxy, which resolves names.

    :param proxy: the validated URL of the proxy.
    :param policy: the policy for hosts that are addresses.  For names, the proxy decides.
    :param tls: the policy for trust in https servers at the end of tunnels.
    :param timeout: seconds to connect to each address of the proxy.
    """

    def __init__(
        self,
        reactor: IReactor,
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
    """An endpoint for the proxy, whose errors name the proxy."""

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """See :meth:`twisted.internet.interfaces.IStreamClientEndpoint.connect`."""
        return self._endpoint.connect(protocolFactory).addErrback(_unreachable)


@implementer(IStreamClientEndpoint)
class TunnelEndpoint:
    """An endpoint that connects to a host through a proxy's tunnel.

    :param proxy: the endpoint of the proxy.
    :param host: a name or an address, without brackets.
    """

    def __init__(self, proxy: IStreamClientEndpoint, host: bytes, port: int) -> None:
        self._proxy = proxy
        self._authority = b"%b:%d" % (b"[%b]" % host if b":" in host else host, port)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """See :meth:`twisted.internet.interfaces.IStreamClientEndpoint.connect`.

        :raises SourceFailed: if the proxy cannot be reached, or temporarily opens no tunnel.
        :raises SourceRefused: if the proxy refuses a tunnel to the host.
        """
        connecting = self._proxy.connect(_TunnelFactory(protocolFactory))
        return connecting.addCallback(lambda tunnel: cast("_Tunnel", tunnel).open(self._authority))


class _TunnelFactory(Factory):
    """The factory of tunnels with a protocol at their end."""

    noisy = False

    def __init__(self, inner: IProtocolFactory) -> None:
        self._inner = inner

    def buildProtocol(self, address: IAddress | None) -> Protocol | None:
        inner = self._inner.buildProtocol(cast("IAddress", address))
        return None if inner is None else _Tunnel(inner)


class _Tunnel(Protocol):
    """A protocol that opens a tunnel, and then passes all bytes to the protocol at its end."""

    def __init__(self, inner: IProtocol) -> None:
        self._inner = inner
        self._head = b""
        self._opening: Deferred[IProtocol] | None = None
        self._open = False

    def open(self, authority: bytes) -> Deferred[IProtocol]:
        """Open the tunnel; return the connected protocol at its end."""
        transport = cast("ITCPTransport", self.transport)
        self._opening = Deferred(lambda _opening: self._give_up())
        opening = self._opening
        transport.write(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (authority, authority))
        return opening

    def dataReceived(self, data: bytes) -> None:
        """Process bytes from the proxy, or pass on bytes from the tunnel."""
        if self._open:
            self._inner.dataReceived(data)
        elif self._opening is not None:
            self._head += data
            self._read_head(self._opening)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Report the end of the connection to the proxy or of the tunnel."""
        if self._open:
            self._inner.connectionLost(reason)
        elif self._opening is not None:
            opening, self._opening = self._opening, None
            opening.errback(SourceFailed("The proxy closed the connection without an answer."))

    def _read_head(self, opening: Deferred[IProtocol]) -> None:
        """Read the proxy's answer, as far as received."""
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
        transport = cast("ITCPTransport", self.transport)
        transport.abortConnection()


def _refused(code: int | None) -> Exception | None:
    """Return the error of a proxy's answer to CONNECT; None if the tunnel is open."""
    if code is None:
        return SourceFailed("The proxy's answer is not HTTP.")
    if code < 300:
        return None
    if code == 407:
        return SourceRefused(_CREDENTIALS)
    kind = SourceFailed if may_pass(code) else SourceRefused
    return kind(f"The proxy answers {code}.")


def _check_credentials(response: IResponse) -> IResponse:
    """Refuse status 407, the only answer that is certainly the proxy's own."""
    if response.code == 407:
        response.deliverBody(Unwanted())
        raise SourceRefused(_CREDENTIALS)
    return response


def _unreachable(failure: Failure) -> Failure:
    if failure.check(ConnectError, DNSLookupError):
        raise SourceFailed(f"The proxy cannot be reached: {why(failure.value)}.") from failure.value
    return failure
