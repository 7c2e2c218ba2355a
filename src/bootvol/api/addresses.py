"""Clients' addresses, in the canonical form for limits, delays and the log."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address, ip_network

from twisted.web.iweb import IRequest


def address(request: IRequest) -> str:
    """Return the address of a request's client: see :func:`network`."""
    return network(str(getattr(request.getClientAddress(), "host", "")))


def network(host: str) -> str:
    """Return the canonical form of a client's address for limits, delays and the log.

    An IPv4 address stays as sent.  An IPv4-mapped IPv6 address (RFC 4291, section 2.5.5.2) becomes
    the IPv4 address.  One host may have all IPv6 addresses of a /64 network (RFC 6177), so an IPv6
    address becomes its network.

    :param host: the host of a transport's address; empty for a unix socket.
    :returns: the canonical form; empty if ``host`` is not an address.
    """
    try:
        found = ip_address(host.partition("%")[0])
    except ValueError:
        # A proxy may state any text (PROXY protocol).  The log shows the result.
        return ""
    if isinstance(found, IPv6Address):
        mapped = found.ipv4_mapped
        return str(mapped or ip_network((found, 64), strict=False))
    return str(found)
