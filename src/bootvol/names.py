"""Names to addresses, by the system's resolver, in threads that nothing waits for.

``getaddrinfo`` alone knows all that names can come from (``/etc/hosts``, nsswitch, search domains),
but where a name server is silent it blocks for up to a minute, and cannot be cancelled.  In the
reactor's own threads, as Twisted has it, a few such calls keep all others waiting, and the process
from ending.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Thread
from typing import Any, Final, TypeAlias

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHostnameResolver,
    IHostResolution,
    IResolutionReceiver,
)
from zope.interface import implementer

#: The most names that are asked for at once: a name whose server is silent holds one thread.
_MOST: Final = 64
#: Seconds that an answer is waited for, unless whoever asked gives up earlier.
_PATIENCE: Final = 30.0
#: Seconds after which a name in line is asked for again that got no thread.
_AGAIN: Final = 0.5

_FAMILIES: Final = {
    frozenset([IPv4Address]): socket.AF_INET,
    frozenset([IPv6Address]): socket.AF_INET6,
}
_KINDS: Final = {"TCP": socket.SOCK_STREAM, "UDP": socket.SOCK_DGRAM}
_UNKNOWN: Final = frozenset({socket.EAI_NONAME, socket.EAI_NODATA})

#: The host, the family of addresses and the kind of socket.
_Key: TypeAlias = tuple[str, int, int]
_Found: TypeAlias = list[tuple[Any, ...]] | OSError | UnicodeError


class IReasonedReceiver(IResolutionReceiver):
    """A receiver of addresses that is also told why there are none."""

    def resolutionFailed(reason: str, cause: Exception | None) -> None:
        """No address will come; called before ``resolutionComplete``.

        :param reason: a sentence.
        :param cause: what the system's resolver raised; None where no answer came.
        """


def silent(host: str) -> str:
    """Return what is said of a host whose name server does not answer."""
    return f"The name server does not answer for {host}."


@implementer(IHostResolution)
class _Waiting:
    """One receiver that waits for an answer."""

    def __init__(self, name: str, receiver: IResolutionReceiver, port: int, transport: Any) -> None:
        self.name = name
        self.receiver = receiver
        self.port = port
        self.transport = transport
        self.watch: IDelayedCall | None = None
        self.over = False

    def cancel(self) -> None:
        """See :meth:`twisted.internet.interfaces.IHostResolution.cancel`: nothing more is told."""
        self.over = True
        if self.watch is not None and self.watch.active():
            self.watch.cancel()

    def tell(self, found: _Found) -> None:
        """Pass on an answer."""
        if self.over:
            return
        if isinstance(found, OSError | UnicodeError):
            self.fail(_reason(self.name, found), found)
            return
        self.cancel()
        for family, _kind, _protocol, _name, address in found:
            if family == socket.AF_INET:
                self.receiver.addressResolved(IPv4Address(self.transport, address[0], self.port))
            elif family == socket.AF_INET6:
                self.receiver.addressResolved(
                    IPv6Address(self.transport, address[0], self.port, *address[2:])
                )
        self.receiver.resolutionComplete()

    def fail(self, reason: str, cause: Exception | None = None) -> None:
        """Tell that there is no address."""
        if self.over:
            return
        self.cancel()
        if IReasonedReceiver.providedBy(self.receiver):
            IReasonedReceiver(self.receiver).resolutionFailed(reason, cause)
        self.receiver.resolutionComplete()


@implementer(IHostnameResolver)
class Resolver:
    """Asks the system for each name at most once at a time, whoever waits for it.

    Its methods belong to the reactor's thread.

    :param reactor: its clock, and what brings answers back.
    :param most: names that are asked for at once; others wait.
    :param patience: seconds after which a receiver is told that there is no answer.
    :param look_up: :func:`socket.getaddrinfo`; it may block for as long as it likes.
    """

    def __init__(
        self,
        reactor: Any,
        most: int = _MOST,
        patience: float = _PATIENCE,
        look_up: Callable[..., list[tuple[Any, ...]]] = socket.getaddrinfo,
    ) -> None:
        self._reactor = reactor
        self._most = most
        self._patience = patience
        self._look_up = look_up
        self._asked: dict[_Key, list[_Waiting]] = {}
        self._line: deque[_Key] = deque()
        self._running = 0

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        """See :meth:`twisted.internet.interfaces.IHostnameResolver.resolveHostName`.

        :raises RuntimeError: the system lets the daemon start no thread.
        """
        family = _FAMILIES.get(frozenset(addressTypes or ()), socket.AF_UNSPEC)
        key = (hostName, int(family), int(_KINDS[transportSemantics]))
        waiting = _Waiting(hostName, resolutionReceiver, portNumber, transportSemantics)
        resolutionReceiver.resolutionBegan(waiting)
        waiting.watch = self._reactor.callLater(self._patience, waiting.fail, silent(hostName))
        if key in self._asked:
            self._asked[key] = [each for each in self._asked[key] if not each.over]
            self._asked[key].append(waiting)
            return waiting
        self._asked[key] = [waiting]
        if self._line or self._running >= self._most:
            self._line.append(key)
            return waiting
        try:
            self._begin(key)
        except RuntimeError:
            # Who asked waits until there are threads again, and asks again then.
            del self._asked[key]
            waiting.cancel()
            raise
        return waiting

    def _begin(self, key: _Key) -> None:
        """Ask for a name.

        :raises RuntimeError: there is no thread for that.
        """
        # A daemon thread: the process may end before this does.
        Thread(target=self._ask, args=(key,), name=f"name {key[0]}", daemon=True).start()
        self._running += 1

    def _work(self) -> None:
        """Ask for what is in line, as far as that may be."""
        while self._line and self._running < self._most:
            key = self._line.popleft()
            if all(each.over for each in self._asked[key]):
                del self._asked[key]
                continue
            try:
                self._begin(key)
            except RuntimeError:
                self._line.appendleft(key)
                self._reactor.callLater(_AGAIN, self._work)
                return

    def _answered(self, key: _Key, found: _Found) -> None:
        self._running -= 1
        for waiting in self._asked.pop(key):
            waiting.tell(found)
        self._work()

    # --- in the thread ---------------------------------------------------------------------------

    def _ask(self, key: _Key) -> None:
        host, family, kind = key
        found: _Found
        try:
            found = self._look_up(host, None, family, kind)
        except (OSError, UnicodeError) as error:
            found = error
        # The reactor may have ended meanwhile.
        with suppress(OSError):
            self._reactor.callFromThread(self._answered, key, found)


def _reason(host: str, error: OSError | UnicodeError) -> str:
    """Say why a name has no addresses."""
    if isinstance(error, UnicodeError):
        return f"{host} is no name of a host."
    if error.errno == socket.EAI_AGAIN:
        return silent(host)
    if error.errno in _UNKNOWN:
        return f"The name server knows no host {host}."
    return f"The name {host} cannot be resolved: {error.strerror}."
