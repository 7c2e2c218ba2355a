"""Calls to plugins with a timeout, for callers who wait for the answer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Hashable
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from bootvol.errors import HypervisorSilent
from bootvol.interfaces import IHypervisor
from bootvol.model import Caller
from bootvol.service.inflight import InFlight
from bootvol.threads import StillRunning, at_most

#: Seconds that a plugin may take to answer.
PATIENCE: Final = 10.0

T = TypeVar("T")


class Questions:
    """Calls a plugin, and waits for a limited time.

    A call that was not answered in time is not repeated until its answer has come. While the plugin
    hangs, each repeated call would occupy one more thread, or one more place in the queue for a
    thread.

    :param clock: the reactor.
    :param patience: timeout in seconds.
    """

    def __init__(self, clock: IReactorTime, patience: float = PATIENCE) -> None:
        self._clock = clock
        self._patience = patience
        self._unanswered: set[Hashable] = set()

    async def ask(self, topic: Hashable, question: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return the plugin's answer.

        :param topic: a key that is equal for equal questions.
        :raises StillRunning: if the plugin does not answer in time, or has not yet answered an
            earlier call with the same topic.
        """
        if topic in self._unanswered:
            raise StillRunning
        asked = Deferred.fromCoroutine(question())
        try:
            return await at_most(self._clock, self._patience, asked)
        except StillRunning:
            self._unanswered.add(topic)
            asked.addBoth(lambda _: self._unanswered.discard(topic))
            raise


class Hypervisors:
    """The calls of API callers to a hypervisor.

    :param clock: the reactor.
    :param most: how many callers may wait.
    """

    def __init__(self, clock: IReactorTime, most: int) -> None:
        self._questions = Questions(clock)
        self._in_flight = InFlight(most)

    async def running(self, caller: Caller, hypervisor: IHypervisor) -> Collection[str]:
        """Return the names of the running servers.

        :raises HypervisorSilent: if the hypervisor does not answer in time.
        :raises bootvol.errors.TooManyCalls: if too many calls of the tenant wait for the
            hypervisor.
        :raises bootvol.errors.HypervisorFailed: if the hypervisor cannot tell which servers run.
        """
        try:
            with self._in_flight.place(caller.tenant):
                return frozenset(await self._questions.ask(None, hypervisor.running))
        except StillRunning:
            raise HypervisorSilent from None

    async def console(
        self, caller: Caller, hypervisor: IHypervisor, server: str, length: int
    ) -> bytes:
        """Return the last bytes that a server has written to its serial console.

        :param server: name of the server.
        :param length: limit of the returned bytes.
        :raises HypervisorSilent: if the hypervisor does not answer in time.
        :raises bootvol.errors.TooManyCalls: if too many calls of the tenant wait for the
            hypervisor.
        :raises bootvol.errors.HypervisorFailed: if the console cannot be read.
        """
        try:
            with self._in_flight.place(caller.tenant):
                return await self._questions.ask(server, lambda: hypervisor.console(server, length))
        except StillRunning:
            raise HypervisorSilent from None
