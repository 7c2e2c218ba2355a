"""Support for host names that are valid in DNS but not in IDNA: ``my_mirror``, ``r3---sn-a``.

Twisted encodes each name by IDNA 2008 (RFC 5891, section 4.2.3).  IDNA allows no underscores, and
no hyphens as third and fourth character.  curl uses such names unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast

import idna
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IReactorPluggableNameResolver,
    IResolutionReceiver,
    IStreamClientEndpoint,
)
from twisted.web.client import BrowserLikePolicyForHTTPS
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from bootvol.reactors import IReactor
from bootvol_plugins.http.certificates import Explaining

#: A valid IDNA name for Twisted. No name server is asked for this name.
_STANDIN: Final = "host"


@implementer(IStreamClientEndpoint)
class HostEndpoint:
    """An endpoint that connects to any address of a host.

    :param reactor: the reactor; its ``nameResolver`` resolves the name.
    :param timeout: seconds to connect to each address.
    """

    def __init__(self, reactor: IReactor, host: str, port: int, timeout: float) -> None:
        resolved = host
        if not _is_known(host):
            resolved = _STANDIN
            reactor = resolving(reactor, _Renaming(reactor.nameResolver, host))
        self._endpoint = HostnameEndpoint(reactor, resolved, port, timeout)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """See :meth:`twisted.internet.interfaces.IStreamClientEndpoint.connect`.

        :raises DNSLookupError: if the host has no address.
        """
        connecting: Deferred[IProtocol] = self._endpoint.connect(protocolFactory)
        return connecting


def resolving(reactor: IReactor, resolver: IHostnameResolver) -> IReactor:
    """Return the reactor with another name resolver."""
    return cast("IReactor", _Resolving(reactor, resolver))


@implementer(IReactorPluggableNameResolver)
class _Resolving:
    """The reactor with another name resolver."""

    def __init__(self, reactor: IReactor, resolver: IHostnameResolver) -> None:
        self._reactor = reactor
        self.nameResolver = resolver

    def installNameResolver(self, resolver: IHostnameResolver) -> IHostnameResolver:
        """See :class:`twisted.internet.interfaces.IReactorPluggableNameResolver`."""
        before, self.nameResolver = self.nameResolver, resolver
        return before

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)


@implementer(IPolicyForHTTPS)
class AnyHost:
    """A policy for https that also accepts host names outside of IDNA, and explains refusals.

    :param policy: decides about certificates; accepts only valid IDNA names.
    """

    def __init__(self, policy: BrowserLikePolicyForHTTPS) -> None:
        self._policy = policy

    def creatorForNetloc(self, hostname: bytes, port: int) -> IOpenSSLClientConnectionCreator:
        """See :meth:`twisted.web.iweb.IPolicyForHTTPS.creatorForNetloc`."""
        host = hostname.decode("ascii")
        known = _is_known(host)
        name = hostname if known else _STANDIN.encode("ascii")
        creator: Any = self._policy.creatorForNetloc(name, port)
        if not known:
            # If a later Twisted renames these attributes, certificates are compared with the
            # stand-in, and no server is trusted.
            creator._hostnameBytes = hostname
            creator._hostnameASCII = host
        return Explaining(creator)


@implementer(IHostnameResolver)
class _Renaming:
    """A resolver that always resolves one fixed name."""

    def __init__(self, resolver: IHostnameResolver, host: str) -> None:
        self._resolver = resolver
        self._host = host

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        """See :meth:`twisted.internet.interfaces.IHostnameResolver.resolveHostName`."""
        return self._resolver.resolveHostName(
            resolutionReceiver, self._host, portNumber, addressTypes, transportSemantics
        )


def _is_known(host: str) -> bool:
    """Tell whether a host is a valid IDNA name or an address."""
    if isIPAddress(host) or isIPv6Address(host):
        return True
    try:
        idna.encode(host)
    except idna.IDNAError:
        return False
    return True
