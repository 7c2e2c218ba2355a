"""Tells the log when the clock of this machine and that of the database differ.

Nothing depends on that they do not: leases end by the database's clock, timers go by one that
nobody can set.  But dates that clients see are this machine's.
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

#: Seconds between two looks.
LOOK: Final = 300.0
#: Seconds that clocks may differ by before anything is said of it.
TOLERANCE: Final = 2.0


class SkewWatch(Service):
    """Compares the clocks when it starts, and now and then.

    :param clock: for the time between two looks.
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
        """Compare the clocks now, and from now on; SQLite has none of its own."""
        super().startService()
        if not self._database.embedded:
            self._looking.start(LOOK)

    def stopService(self) -> None:
        """Compare them no more."""
        super().stopService()
        if self._looking.running:
            self._looking.stop()

    async def look(self) -> None:
        """Compare the clocks; tell the log when they begin to differ, and when they do no more."""
        before = self._now()
        try:
            theirs = await self._database.read(shared_time)
        except DatabaseUnavailable:
            return
        # Where within this the database looked at its clock nobody knows.
        first, last = sorted((before, self._now()))
        apart = theirs - min(max(theirs, first), last)
        if differs := abs(apart) > TOLERANCE:
            if not self._differs:
                self._log.warn(
                    "the clock of this machine is {seconds:.0f} s {where} the database's; leases"
                    " go by the database's, but dates that clients see by this machine's: set it",
                    seconds=abs(apart),
                    where="behind" if apart > 0 else "ahead of",
                )
        elif self._differs:
            self._log.info("the clock of this machine and the database's agree again")
        self._differs = differs
