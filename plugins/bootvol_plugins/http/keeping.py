"""Connections that serve several requests for parts of images, one after the other.

Each connection was checked when its server's address was resolved.  A kept connection stays with
this address, so later requests need no second check.  A connection is kept for one source, one
scheme, one host and one port.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.web.client import URI, Agent
from twisted.web.iweb import IAgent, IAgentEndpointFactory
from zope.interface import implementer

from bootvol.reactors import IReactor
from bootvol_plugins.http.direct import BoundedConnection, BoundedConnections, QuietPool

#: Seconds that an idle connection waits for the next request.  Few servers wait less.
_IDLE: Final = 4
#: Most idle connections to one server.
_MOST_IDLE: Final = 8


def kept_connections(reactor: IReactor) -> QuietPool:
    """Return a pool for the connections of one source.

    If a server ends a connection just before the next request, the pool repeats the request on a
    new connection.
    """
    pool = QuietPool(reactor, persistent=True)
    pool.cachedConnectionTimeout = _IDLE
    pool.maxPersistentPerHost = _MOST_IDLE
    return pool


def keeping_agent(reactor: IReactor, endpoints: IAgentEndpointFactory, pool: QuietPool) -> IAgent:
    """Return an agent that keeps connections for further requests, with bounded heads of answers.

    :param endpoints: the factory of endpoints, which checks each new connection.
    :param pool: the kept connections.
    """
    agent: IAgent = Agent.usingEndpointFactory(reactor, _Bounding(endpoints), pool)
    return agent


@implementer(IAgentEndpointFactory)
class _Bounding:
    """A factory of endpoints whose connections have bounded heads."""

    def __init__(self, endpoints: IAgentEndpointFactory) -> None:
        self._endpoints = endpoints

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """See :meth:`twisted.web.iweb.IAgentEndpointFactory.endpointForURI`."""
        return _BoundingEndpoint(self._endpoints.endpointForURI(uri))


@implementer(IStreamClientEndpoint)
class _BoundingEndpoint:
    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """See :meth:`twisted.internet.interfaces.IStreamClientEndpoint.connect`."""
        connecting = self._endpoint.connect(_KeptConnections(protocolFactory))
        return connecting.addCallback(lambda kept: cast("_KeptConnection", kept).wrappedProtocol)


class _KeptConnection(BoundedConnection):
    """A connection with one head for each request."""

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Send the head of a request, and expect the head of an answer."""
        self.expect_head()
        super().writeSequence(list(data))

    def body_follows(self, *, chunked: bool) -> None:
        """Read larger pieces: no receiver of the body tells its begin."""
        self.body_begins(chunked=chunked)


class _KeptConnections(BoundedConnections):
    protocol = _KeptConnection
