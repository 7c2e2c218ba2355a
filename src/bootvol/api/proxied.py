"""Listens at the endpoints of the configuration, also behind proxies with the PROXY protocol.

Twisted's own wrapper for ``haproxy:`` endpoints needs the whole begin of a header in one piece, and
logs a traceback for many malformed headers.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.application import strports
from twisted.application.service import IService
from twisted.protocols.haproxy._exceptions import InvalidProxyHeader
from twisted.protocols.haproxy._info import ProxyInfo
from twisted.protocols.haproxy._v1parser import V1Parser
from twisted.protocols.haproxy._v2parser import V2Parser
from twisted.protocols.haproxy._wrapper import HAProxyProtocolWrapper, HAProxyWrappingFactory

from bootvol.api.sites import ApiSite
from bootvol.errors import MalformedRequest

_PREFIX: Final = "haproxy:"
#: The begin of a header of version 2, up to the length (the PROXY protocol, section 2.2).
_FIXED: Final = 16
#: The whole header of a proxy's own connection, as of a health check (section 2.1).
_UNKNOWN: Final = b"PROXY UNKNOWN\r\n"
#: Largest header in bytes.  Proxies add facts to the addresses: names, and certificates of clients.
_LONGEST: Final = 4096


def service(endpoint: str, site: ApiSite, reactor: Any) -> IService:
    """Return a service that listens at an endpoint.

    :param endpoint: a Twisted endpoint description.
    :param reactor: the reactor to listen with.
    """
    made: IService
    if endpoint.startswith(_PREFIX):
        made = strports.service(endpoint.removeprefix(_PREFIX), Proxied(site), reactor)
    else:
        made = strports.service(endpoint, site, reactor)
    return made


class Proxied(HAProxyWrappingFactory):
    """The factory of connections that begin with a header of the PROXY protocol.

    :param site: makes the connections behind the headers.
    """

    def __init__(self, site: ApiSite) -> None:
        super().__init__(site)
        self.access = site.access
        self.protocol = _Proxied  # type: ignore[assignment]


class _Proxied(HAProxyProtocolWrapper):
    """A connection that refuses a malformed header with one line of the access log."""

    factory: Proxied
    transport: Any
    _head = b""
    _is_refused = False

    def dataReceived(self, data: bytes) -> None:
        """Read the header, and pass all bytes behind the header on."""
        if self._is_refused:
            return
        if self._proxyInfo is None:
            self._head += data
            try:
                self._proxyInfo, data = _parsed(self._head)
            except InvalidProxyHeader:
                self._is_refused = True
                error = MalformedRequest("Malformed header of the PROXY protocol")
                self.factory.access.refused(self.transport.getPeer(), error)
                self.transport.loseConnection()
                return
        if data:
            self.wrappedProtocol.dataReceived(data)


def _parsed(head: bytes) -> tuple[ProxyInfo | None, bytes]:
    """Return a header, and the bytes behind the header; None until the header is complete.

    :raises InvalidProxyHeader: if the header is malformed.
    """
    parser: V1Parser | V2Parser
    if head.startswith(_UNKNOWN):
        # Twisted's parser wants a space behind the word.
        return ProxyInfo(_UNKNOWN, None, None), head.removeprefix(_UNKNOWN)
    if head.startswith(V1Parser.PROXYSTR):
        parser = V1Parser()
    elif head.startswith(V2Parser.PREFIX):
        if len(head) < _FIXED:
            return None, b""
        parser = V2Parser()
    elif V2Parser.PREFIX.startswith(head) or V1Parser.PROXYSTR.startswith(head):
        return None, b""
    else:
        raise InvalidProxyHeader
    try:
        info, rest = parser.feed(head)
    except (LookupError, ValueError):
        # Twisted's parsers let some errors of Python out: a port that is no number, for example.
        raise InvalidProxyHeader from None
    if info is None and len(head) > _LONGEST:
        raise InvalidProxyHeader
    return info, rest or b""
