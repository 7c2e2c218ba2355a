"""Calls of API callers to a hypervisor, with a timeout and a limit of waiting callers."""

from __future__ import annotations

from collections.abc import Collection

from twisted.internet.interfaces import IReactorTime

from bootvol.errors import HypervisorSilent
from bootvol.interfaces import IHypervisor
from bootvol.model import Caller
from bootvol.questions import Questions
from bootvol.service.inflight import InFlight
from bootvol.threads import StillRunning


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
