"""Which addresses may be connected to.

A URL that is allowed says nothing of where its name leads: whoever answers for the name decides
that, and may decide anew for each question (DNS rebinding).  So every connection judges what its
own question was answered, and connects to nothing but the very addresses that it judged.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

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
from bootvol_plugins.http.hosts import HostEndpoint, Resolving

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: The only IPv6 addresses that are routed everywhere: global unicast (RFC 4291), and IPv4 behind a
#: translator (RFC 6052), which is judged by what it carries.
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_ROUTED_6: Final = (ipaddress.ip_network("2000::/3"), _NAT64)
#: Not for everyone, though Python, or an older one, takes them to be.
_INTERNAL: Final = tuple(
    ipaddress.ip_network(each)
    for each in (
        "192.0.0.0/24",  # protocol assignments (RFC 6890); a cloud keeps its metadata there
        "192.88.99.0/24",  # relays of 6to4 (RFC 7526)
        "168.63.129.16/32",  # within each virtual network of a cloud, that cloud's own services
        "2002::/16",  # 6to4 (RFC 7526)
        "3fff::/20",  # documentation (RFC 9637)
    )
)


@attrs.frozen
class AddressPolicy:
    """Globally routable addresses, and what the operator allows besides.

    :ivar networks: the operator's own.
    :ivar literals: addresses that stand in the allowed URLs themselves.
    """

    networks: tuple[Network, ...]
    literals: frozenset[Address]

    @classmethod
    def of(cls, networks: Iterable[str], allow: Iterable[DecodedURL]) -> AddressPolicy:
        """Return the policy of a configuration that was found right."""
        literals = (_address(prefix.host) for prefix in allow)
        return cls(
            tuple(ipaddress.ip_network(each) for each in networks),
            frozenset(each for each in literals if each is not None),
        )

    def allows(self, address: str, host: str) -> bool:
        """Tell whether ``address`` may be connected to for the sake of ``host``.

        :param host: as the URL has it.  Where it is one of the literals it is allowed as such; a
            name that leads to the same address is not.
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
        """Tell whether somebody else may be asked to connect to ``host``: any name, but not any
        address.
        """
        found = _address(host) or _old_address(host)
        return found is None or self.allows(str(found), host)


#: For servers that the operator names.
ANYWHERE: Final = AddressPolicy.of(("0.0.0.0/0", "::/0"), ())


@implementer(IHostnameResolver)
class FilteringResolver:
    """Passes on the addresses that a policy allows; serves one connection.

    :param resolver: knows the addresses.
    :param source: what the operator calls the source, for the log.
    :ivar refused: the addresses that were not passed on.
    :ivar reason: why there is no address, as far as that is known; None once all has been told.
    :ivar cause: what was raised for that reason, if anything was.
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
        """Tell whether an address that ``host`` leads to is allowed, and remember if it is not."""
        text = address.host if isinstance(address, IPv4Address | IPv6Address) else str(address)
        if self._policy.allows(text, host):
            return True
        self.refused.append(text)
        # For the operator only: what a name means inside is nothing for tenants.
        self._log.warn(
            "source {source}: {host} leads to {address}, which is not connected to;"
            " `networks` allows networks of your own",
            source=self._source,
            host=host,
            address=text,
        )
        return False


@implementer(IReasonedReceiver)
class _Receiver:
    """Stands before the receiver of a resolution."""

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
    """Connects to a host at such of its addresses as a policy allows.

    :param timeout: seconds that each address may take.
    :param source: what the operator calls the source, for the log.
    """

    def __init__(
        self, reactor: Any, host: str, port: int, timeout: float, policy: AddressPolicy, source: str
    ) -> None:
        self._reactor = reactor
        self._host = host
        self._port = port
        self._timeout = timeout
        self._policy = policy
        self._source = source

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """See :meth:`twisted.internet.interfaces.IStreamClientEndpoint.connect`.

        :raises SourceRefused: the host has addresses, but none that is allowed.
        :raises SourceFailed: it has none, or its name server had not answered when this was
            cancelled.
        """
        resolver = FilteringResolver(self._reactor.nameResolver, self._policy, self._source)
        reactor = Resolving(self._reactor, resolver)
        endpoint = HostEndpoint(reactor, self._host, self._port, self._timeout)

        def explain(failure: Failure) -> Failure:
            # A resolver has no word for it: what is left looks like a name without addresses.
            if resolver.refused and failure.check(DNSLookupError):
                raise refusal(self._host)
            if resolver.reason is not None and failure.check(DNSLookupError):
                raise SourceFailed(resolver.reason) from resolver.cause
            return failure

        return endpoint.connect(protocolFactory).addErrback(explain)


@implementer(IAgentEndpointFactory)
class CheckedEndpoints:
    """Makes an Agent connect only to what a policy allows, https as well as http.

    The Agent must not keep connections: each is judged as it is made.

    :param tls: who https servers are trusted by.
    """

    def __init__(
        self, reactor: Any, policy: AddressPolicy, tls: IPolicyForHTTPS, timeout: float, source: str
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
    """Return what a tenant is told: the host that was named, not the address behind it."""
    return SourceRefused(f"{host} leads to an address that the operator does not allow.")


def _address(text: str) -> Address | None:
    """Return the address that ``text`` is, None if it is none."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _old_address(text: str) -> Address | None:
    """Return the address that ``text`` means to a resolver of old: ``127.1``, ``0x7f000001``."""
    try:
        return ipaddress.ip_address(socket.inet_aton(text))
    except OSError:
        return None


def _is_public(address: Address) -> bool:
    """Tell whether everyone may be reached by this address; Python's own word has gaps."""
    if address.version == 6 and not any(address in each for each in _ROUTED_6):
        return False
    if address.is_multicast or any(address in each for each in _INTERNAL):
        return False
    return address.is_global


def _ends(address: Address) -> Iterator[Address]:
    """Yield every address at which a packet to ``address`` may come out."""
    if isinstance(address, ipaddress.IPv4Address):
        yield address
    elif address.ipv4_mapped is not None:
        yield address.ipv4_mapped  # the same one, written otherwise
    else:
        yield address
        if address.sixtofour is not None:
            yield address.sixtofour
        if address.teredo is not None:
            yield from address.teredo
        if address in _NAT64:
            yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
