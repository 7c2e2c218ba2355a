"""The policy for addresses of connections.

An allowed URL does not fix the addresses of its host name.  The owner of the name chooses the
addresses, and may change them with each query (DNS rebinding).  So every connection checks the
addresses of its own query, and connects only to these checked addresses.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import attrs
from hyperlink import DecodedURL
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IProtocol,
    IProtocolFactory,
    IResolutionReceiver,
    IStreamClientEndpoint,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import URI
from twisted.web.iweb import IAgentEndpointFactory, IPolicyForHTTPS
from zope.interface import implementer

from bootvol.errors import SourceFailed, SourceRefused
from bootvol.names import IReasonedReceiver, silent
from bootvol.reactors import IReactor
from bootvol_plugins.http.hosts import HostEndpoint, resolving

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: The only globally routed IPv6 addresses: global unicast (RFC 4291), and IPv4 behind a translator
#: (RFC 6052). For a translator, the embedded IPv4 address decides.
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_ROUTED_6: Final = (ipaddress.ip_network("2000::/3"), _NAT64)
#: Networks that are not public, although Python, or an older version, treats them as public.
_INTERNAL: Final = tuple(
    ipaddress.ip_network(each)
    for each in (
        "192.0.0.0/24",  # protocol assignments (RFC 6890), with the metadata of one cloud
        "192.88.99.0/24",  # relays of 6to4 (RFC 7526)
        "168.63.129.16/32",  # a cloud's own services, in each of its virtual networks
        "2002::/16",  # 6to4 (RFC 7526)
        "3fff::/20",  # documentation (RFC 9637)
    )
)


@attrs.frozen
class AddressPolicy:
    """The policy: globally routable addresses, and addresses that the operator allows.

    :ivar networks: the operator's own networks.
    :ivar literals: addresses in the allowed URLs.
    """

    networks: tuple[Network, ...]
    literals: frozenset[Address]

    @classmethod
    def of(cls, networks: Iterable[str], allow: Iterable[DecodedURL]) -> AddressPolicy:
        """Return the policy of a validated configuration."""
        literals = (_address(prefix.host) for prefix in allow)
        return cls(
            tuple(ipaddress.ip_network(each) for each in networks),
            frozenset(each for each in literals if each is not None),
        )

    def allows(self, address: str, host: str) -> bool:
        """Tell whether a connection to ``address`` is allowed for ``host``.

        :param host: the host in the URL.  A literal address is allowed as a host in the URL, but
            not as the address of a name.
        """
        found = _address(address)
        if found is None:
            return False
        if found in self.literals and found == _address(host):
            return True
        return all(
            _is_public(each) or any(each in network for network in self.networks)
            for each in _ends(found)
        )

    def allows_unresolved(self, host: str) -> bool:
        """Tell whether a proxy may be asked for ``host``: any name, but only allowed addresses."""
        found = _address(host) or _old_address(host)
        return found is None or self.allows(str(found), host)


#: The policy for servers that the operator names.
ANYWHERE: Final = AddressPolicy.of(("0.0.0.0/0", "::/0"), ())


@implementer(IHostnameResolver)
class FilteringResolver:
    """A resolver for one connection, which returns only the addresses that a policy allows.

    :param resolver: finds the addresses.
    :param source: the source's name in the configuration, for the log.
    :ivar refused: the refused addresses.
    :ivar reason: the known reason for a lack of addresses; None after a complete resolution.
    :ivar cause: the exception behind the reason, if any.
    """

    _log = Logger()

    def __init__(self, resolver: IHostnameResolver, policy: AddressPolicy, source: str) -> None:
        self.refused: list[str] = []
        self.reason: str | None = None
        self.cause: Exception | None = None
        self._resolver = resolver
        self._policy = policy
        self._source = source

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        """See :meth:`twisted.internet.interfaces.IHostnameResolver.resolveHostName`."""
        self.reason = silent(hostName)
        receiver = _Receiver(resolutionReceiver, self, hostName)
        return self._resolver.resolveHostName(
            receiver, hostName, portNumber, addressTypes, transportSemantics
        )

    def passes(self, address: IAddress, host: str) -> bool:
        """Tell whether an address of ``host`` is allowed; remember and log a refused address."""
        text = address.host if isinstance(address, IPv4Address | IPv6Address) else str(address)
        if self._policy.allows(text, host):
            return True
        self.refused.append(text)
        # This is for the operator only: tenants must not learn internal addresses.
        self._log.warn(
            "source {source}: {host} leads to {address}, a forbidden address;"
            " `networks` allows networks of your own",
            source=self._source,
            host=host,
            address=text,
        )
        return False


@implementer(IReasonedReceiver)
class _Receiver:
    """A filter in front of the receiver of a resolution."""

    def __init__(self, receiver: IResolutionReceiver, chooser: FilteringResolver, host: str):
        self._receiver = receiver
        self._chooser = chooser
        self._host = host
        self._failed: str | None = None

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        self._receiver.resolutionBegan(resolutionInProgress)

    def addressResolved(self, address: IAddress) -> None:
        if self._chooser.passes(address, self._host):
            self._receiver.addressResolved(address)

    def resolutionFailed(self, reason: str, cause: Exception | None) -> None:
        self._failed = reason
        self._chooser.cause = cause

    def resolutionComplete(self) -> None:
        self._chooser.reason = self._failed
        self._receiver.resolutionComplete()


@implementer(IStreamClientEndpoint)
class CheckedEndpoint:
    """An endpoint that connects to a host's allowed addresses only.

    :param timeout: seconds to connect to each address.
    :param source: the source's name in the configuration, for the log.
    """

    def __init__(
        self,
        reactor: IReactor,
        host: str,
        port: int,
        timeout: float,
        policy: AddressPolicy,
        source: str,
    ) -> None:
        self._reactor = reactor
        self._host = host
        self._port = port
        self._timeout = timeout
        self._policy = policy
        self._source = source

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """See :meth:`twisted.internet.interfaces.IStreamClientEndpoint.connect`.

        :raises SourceRefused: if the host has addresses, but no allowed one.
        :raises SourceFailed: if the host has no address, or if its name server had not answered
            before the cancellation.
        """
        resolver = FilteringResolver(self._reactor.nameResolver, self._policy, self._source)
        reactor = resolving(self._reactor, resolver)
        endpoint = HostEndpoint(reactor, self._host, self._port, self._timeout)

        def explain(failure: Failure) -> Failure:
            # A resolver cannot report refused addresses: the name seems to have no addresses.
            if resolver.refused and failure.check(DNSLookupError):
                raise refusal(self._host)
            if resolver.reason is not None and failure.check(DNSLookupError):
                raise SourceFailed(resolver.reason) from resolver.cause
            return failure

        return endpoint.connect(protocolFactory).addErrback(explain)


@implementer(IAgentEndpointFactory)
class CheckedEndpoints:
    """A factory of endpoints with allowed addresses only, for an Agent's http and https.

    Only new connections are checked.  An Agent may use a connection again for the same scheme, host
    and port: the connection stays with the checked address.

    :param tls: the policy for trust in https servers.
    """

    def __init__(
        self,
        reactor: IReactor,
        policy: AddressPolicy,
        tls: IPolicyForHTTPS,
        timeout: float,
        source: str,
    ) -> None:
        self._reactor = reactor
        self._policy = policy
        self._tls = tls
        self._timeout = timeout
        self._source = source

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """See :meth:`twisted.web.iweb.IAgentEndpointFactory.endpointForURI`."""
        host = uri.host.decode("ascii")
        endpoint = CheckedEndpoint(
            self._reactor, host, uri.port, self._timeout, self._policy, self._source
        )
        if uri.scheme == b"http":
            return endpoint
        return wrapClientTLS(self._tls.creatorForNetloc(uri.host, uri.port), endpoint)


def refusal(host: str) -> SourceRefused:
    """Return the error for a tenant, with the host's name but without its address."""
    return SourceRefused(f"{host} leads to an address that the operator does not allow.")


def _address(text: str) -> Address | None:
    """Return ``text`` as an address; None if ``text`` is not an address."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _old_address(text: str) -> Address | None:
    """Return an address in the old forms of resolvers (``127.1``, ``0x7f000001``), or None."""
    try:
        return ipaddress.ip_address(socket.inet_aton(text))
    except OSError:
        return None


def _is_public(address: Address) -> bool:
    """Tell whether an address is public; Python's own ``is_global`` has gaps."""
    if address.version == 6 and not any(address in each for each in _ROUTED_6):
        return False
    if address.is_multicast or any(address in each for each in _INTERNAL):
        return False
    return address.is_global


def _ends(address: Address) -> Iterator[Address]:
    """Yield all possible destinations of a packet to ``address``."""
    if isinstance(address, ipaddress.IPv4Address):
        yield address
    elif address.ipv4_mapped is not None:
        yield address.ipv4_mapped  # the same address in another form
    else:
        yield address
        if address.sixtofour is not None:
            yield address.sixtofour
        if address.teredo is not None:
            yield from address.teredo
        if address in _NAT64:
            yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
