"""Questions to plugins and the like for those who wait for an answer: but not for ever."""

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

#: Seconds that a plugin may take for an answer.
PATIENCE: Final = 10.0

T = TypeVar("T")


class Questions:
    """Asks a plugin, and waits for so many seconds at most.

    A question that was not answered in time is not put again until its answer has come.  Each
    would keep one more thread, or one more place in line for a thread, for as long as the plugin
    hangs.

    :param clock: the reactor.
    :param patience: seconds.
    """

    def __init__(self, clock: IReactorTime, patience: float = PATIENCE) -> None:
        self._clock = clock
        self._patience = patience
        self._unanswered: set[Hashable] = set()

    async def ask(self, topic: Hashable, question: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return the plugin's answer.

        :param topic: equal for equal questions.
        :raises StillRunning: the plugin does not answer in time, or has not answered the same
            question yet that somebody put earlier.
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
    """What callers may ask of a hypervisor.

    :param clock: the reactor.
    :param most: how many callers may wait.
    """

    def __init__(self, clock: IReactorTime, most: int) -> None:
        self._questions = Questions(clock)
        self._in_flight = InFlight(most)

    async def running(self, caller: Caller, hypervisor: IHypervisor) -> Collection[str]:
        """Return the names of the servers that run.

        :raises HypervisorSilent: the hypervisor does not answer in time.
        :raises bootvol.errors.TooManyCalls: too many calls of the tenant wait for the hypervisor.
        :raises bootvol.errors.HypervisorFailed: it cannot be told.
        """
        try:
            with self._in_flight.place(caller.tenant):
                return frozenset(await self._questions.ask(None, hypervisor.running))
        except StillRunning:
            raise HypervisorSilent from None

    async def console(
        self, caller: Caller, hypervisor: IHypervisor, server: str, length: int
    ) -> bytes:
        """Return the last bytes of what a server has written to its serial console.

        :param server: its name.
        :param length: at most so many bytes.
        :raises HypervisorSilent: the hypervisor does not answer in time.
        :raises bootvol.errors.TooManyCalls: too many calls of the tenant wait for the hypervisor.
        :raises bootvol.errors.HypervisorFailed: the console cannot be read.
        """
        try:
            with self._in_flight.place(caller.tenant):
                return await self._questions.ask(server, lambda: hypervisor.console(server, length))
        except StillRunning:
            raise HypervisorSilent from None
