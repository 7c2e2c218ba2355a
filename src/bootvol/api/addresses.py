"""Clients' addresses, in the one form that limits, delays and the log go by."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address, ip_network

from twisted.web.iweb import IRequest


def address(request: IRequest) -> str:
    """Return where a request comes from: see :func:`network`."""
    return network(str(getattr(request.getClientAddress(), "host", "")))


def network(host: str) -> str:
    """Return the one form of a client's address that limits, delays and the log go by.

    An IPv4 address is itself, also where IPv6 maps it (RFC 4291, section 2.5.5.2).  One host may
    have all IPv6 addresses of a network of 64 bits (RFC 6177), so that network stands for them.

    :param host: as a transport tells it; empty for a unix socket.
    """
    try:
        found = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(found, IPv6Address):
        mapped = found.ipv4_mapped
        return str(mapped or ip_network((found, 64), strict=False))
    return str(found)
