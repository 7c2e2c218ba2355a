"""Resolution of host names by the system's resolver, in threads that no code waits for.

Only ``getaddrinfo`` knows all sources of names (``/etc/hosts``, nsswitch, search domains).  But
``getaddrinfo`` blocks for up to a minute if a name server does not answer, and cannot be cancelled.
By default Twisted runs these calls in the reactor's own threads.  A few such calls would then delay
all other calls, and the end of the process.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Thread
from typing import Any, Final, Literal, TypeAlias, cast

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHostnameResolver,
    IHostResolution,
    IResolutionReceiver,
)
from zope.interface import implementer

from bootvol.reactors import IReactor

#: Number of concurrent look-ups.  A name whose server does not answer occupies one thread.
_MOST: Final = 64
#: Seconds to wait for an answer, unless the caller gives up earlier.
_PATIENCE: Final = 30.0
#: Seconds until the next try, if no thread could be started for a queued name.
_AGAIN: Final = 0.5

_FAMILIES: Final = {
    frozenset([IPv4Address]): socket.AF_INET,
    frozenset([IPv6Address]): socket.AF_INET6,
}
_KINDS: Final = {"TCP": socket.SOCK_STREAM, "UDP": socket.SOCK_DGRAM}
_UNKNOWN: Final = frozenset({socket.EAI_NONAME, socket.EAI_NODATA})

#: The host, the address family and the socket type.
_Key: TypeAlias = tuple[str, int, int]
#: A result of :func:`socket.getaddrinfo`.
_Info: TypeAlias = tuple[Any, ...]
_Found: TypeAlias = list[_Info] | OSError | UnicodeError


class IReasonedReceiver(IResolutionReceiver):
    """A receiver of addresses that is also told the reason for a failure."""

    def resolutionFailed(reason: str, cause: Exception | None) -> None:
        """Receive the reason for a failed resolution; called before ``resolutionComplete``.

        :param reason: a sentence.
        :param cause: exception of the system's resolver; None after a timeout.
        """


def silent(host: str) -> str:
    """Return the message about a host whose name server does not answer."""
    return f"The name server does not answer for {host}."


@implementer(IHostResolution)
class _Waiting:
    """A receiver that waits for an answer."""

    def __init__(self, name: str, receiver: IResolutionReceiver, port: int, transport: str) -> None:
        self.name = name
        self.receiver = receiver
        self.port = port
        self.transport = cast('Literal["TCP", "UDP"]', transport)
        self.watch: IDelayedCall | None = None
        self.over = False

    def cancel(self) -> None:
        """See :meth:`twisted.internet.interfaces.IHostResolution.cancel`.

        The receiver gets no further calls.
        """
        self.over = True
        if self.watch is not None and self.watch.active():
            self.watch.cancel()

    def tell(self, found: _Found) -> None:
        """Pass an answer on to the receiver."""
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
        """Tell the receiver that the resolution failed."""
        if self.over:
            return
        self.cancel()
        if IReasonedReceiver.providedBy(self.receiver):
            IReasonedReceiver(self.receiver).resolutionFailed(reason, cause)
        self.receiver.resolutionComplete()


@implementer(IHostnameResolver)
class Resolver:
    """A resolver with at most one look-up per name at a time, shared by all receivers.

    Call all methods from the reactor thread only.

    :param reactor: provides the clock, and delivers answers.
    :param most: number of concurrent look-ups.  Further names wait in a queue.
    :param patience: seconds until a receiver is told that no answer came.
    :param look_up: :func:`socket.getaddrinfo`, or a function like it.  May block for any time.
    """

    def __init__(
        self,
        reactor: IReactor,
        most: int = _MOST,
        patience: float = _PATIENCE,
        look_up: Callable[..., list[_Info]] = socket.getaddrinfo,
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

        :raises RuntimeError: if the system lets the daemon start no thread.
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
            # The caller waits until threads are available, and then tries again.
            del self._asked[key]
            waiting.cancel()
            raise
        return waiting

    def _begin(self, key: _Key) -> None:
        """Start a look-up.

        :raises RuntimeError: if no thread can be started.
        """
        # A daemon thread, so the process may end before the look-up does.
        Thread(target=self._ask, args=(key,), name=f"name {key[0]}", daemon=True).start()
        self._running += 1

    def _work(self) -> None:
        """Start look-ups for queued names, up to the limit."""
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
        # The reactor may have stopped meanwhile.
        with suppress(OSError):
            self._reactor.callFromThread(self._answered, key, found)


def _reason(host: str, error: OSError | UnicodeError) -> str:
    """Return the reason why a name has no addresses."""
    if isinstance(error, UnicodeError):
        return f"{host} is no name of a host."
    if error.errno == socket.EAI_AGAIN:
        return silent(host)
    if error.errno in _UNKNOWN:
        return f"The name server knows no host {host}."
    return f"The name {host} cannot be resolved: {error.strerror}."
