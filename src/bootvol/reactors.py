"""The reactor that bootvol runs on."""

from __future__ import annotations

from types import MethodType
from typing import cast

from twisted.internet.interfaces import (
    IReactorCore,
    IReactorFDSet,
    IReactorPluggableNameResolver,
    IReactorProcess,
    IReactorTCP,
    IReactorThreads,
    IReactorTime,
    IReactorUNIX,
)
from twisted.internet.tcp import Connection
from twisted.internet.unix import Client, Server
from twisted.protocols.policies import ProtocolWrapper


class IReactor(
    IReactorCore,
    IReactorFDSet,
    IReactorPluggableNameResolver,
    IReactorProcess,
    IReactorTCP,
    IReactorThreads,
    IReactorTime,
    IReactorUNIX,
):
    """A reactor with all that bootvol and its plugins use.

    Code that needs only a clock takes an ``IReactorTime``, so that tests can pass a fake clock.
    """


def installed() -> IReactor:
    """Return the reactor of this process.  Installs Twisted's default if none is installed yet."""
    from twisted.internet import reactor

    return cast("IReactor", reactor)


def refuse_descriptors(transport: object) -> None:
    """Let the transport of a connection receive bytes, but no descriptors.

    The process at the other end of a unix socket may send descriptors (unix(7)).  Twisted writes a
    line in the log for each such message, and closes the descriptors, which may block the reactor
    for ever: for a file of FUSE, say.  Without room for descriptors, the system drops them.

    :param transport: a transport of any kind; only those of unix sockets change, also behind
        wrappers, as with ``haproxy:`` endpoints.
    """
    while isinstance(transport, ProtocolWrapper):
        transport = transport.transport
    if isinstance(transport, Client | Server):
        transport.doRead = MethodType(Connection.doRead, transport)  # type: ignore[method-assign]
