"""Rate limits for log lines that strangers cause: few lines are written, the rest is counted."""

from __future__ import annotations

from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

#: The most lines of one kind in one :data:`PERIOD`.
MOST: Final = 100
#: Length of a period in seconds.
PERIOD: Final = 10


class FewLines:
    """The limit for log lines of one kind.  The number of omitted lines is logged.

    Call all methods from the reactor thread only.

    :param clock: the reactor.
    :param log: the log that gets the number of omitted lines.
    :param others: name of the omitted lines, in the plural.
    """

    def __init__(self, clock: IReactorTime, log: Logger, others: str) -> None:
        self._clock = clock
        self._log = log
        self._others = others
        self._left = MOST
        self._omitted = 0
        #: Ends the period.
        self._ending: IDelayedCall | None = None

    def admit(self) -> bool:
        """Return whether one more line may be written."""
        if self._ending is None:
            self._ending = self._clock.callLater(PERIOD, self._ended)
        if not self._left:
            self._omitted += 1
            return False
        self._left -= 1
        return True

    def stop(self) -> None:
        """End the period, and log the number of omitted lines."""
        if self._ending is not None:
            self._ending.cancel()
            self._ended()

    def _ended(self) -> None:
        self._ending = None
        if self._omitted:
            self._log.info(
                "{count} more {others} in {period} seconds",
                count=self._omitted,
                others=self._others,
                period=PERIOD,
            )
        self._left, self._omitted = MOST, 0
