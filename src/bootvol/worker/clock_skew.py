"""Logs a difference between the clocks of this machine and of the database.

Correctness does not depend on equal clocks: leases end by the database's clock, and timers use a
clock that nobody can set. But clients see dates by this machine's clock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from bootvol.errors import DatabaseUnavailable
from bootvol.store.claims import shared_time
from bootvol.store.database import Database

#: Seconds between two comparisons.
LOOK: Final = 300.0
#: Difference in seconds that is not logged.
TOLERANCE: Final = 2.0


class SkewWatch(Service):
    """Compares the clocks at its start and periodically.

    :param clock: times the comparisons.
    :param now: returns seconds since 1970, by this machine's clock.
    """

    _log = Logger()

    def __init__(self, database: Database, clock: IReactorTime, now: Callable[[], float]) -> None:
        self._database = database
        self._now = now
        self._differs = False
        self._looking = LoopingCall(lambda: Deferred.fromCoroutine(self.look()))
        self._looking.clock = clock

    def startService(self) -> None:
        """Compare the clocks now and periodically.

        SQLite has no clock of its own, so with SQLite nothing is compared.
        """
        super().startService()
        if not self._database.is_sqlite:
            self._looking.start(LOOK)

    def stopService(self) -> None:
        """Stop comparing the clocks."""
        super().stopService()
        if self._looking.running:
            self._looking.stop()

    async def look(self) -> None:
        """Compare the clocks; log when they begin to differ, and when they agree again."""
        before = self._now()
        try:
            theirs = await self._database.read(shared_time)
        except DatabaseUnavailable:
            return
        # The database read its clock at an unknown moment between these two times.
        first, last = sorted((before, self._now()))
        apart = theirs - min(max(theirs, first), last)
        if differs := abs(apart) > TOLERANCE:
            if not self._differs:
                self._log.warn(
                    "the clock of this machine is {seconds:.0f} s {where} the database's; leases"
                    " go by the database's, but dates for clients by this machine's: set this"
                    " machine's clock",
                    seconds=abs(apart),
                    where="behind" if apart > 0 else "ahead of",
                )
        elif self._differs:
            self._log.info("the clock of this machine and the database's agree again")
        self._differs = differs
