"""Lines of the log that strangers cause: few are written, and the others are counted."""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

#: The most lines of one kind in :data:`PERIOD`.
MOST: Final = 100
#: Seconds.
PERIOD: Final = 10


class FewLines:
    """Tells which lines of one kind may be written, and writes how many others there were.

    All methods belong to the reactor's thread.

    :param clock: the reactor.
    :param log: where the others are told of.
    :param others: what the others are, in the plural.
    """

    def __init__(self, clock: IReactorTime, log: Logger, others: str) -> None:
        self._clock = clock
        self._log = log
        self._others = others
        self._left = MOST
        self._omitted = 0
        #: Ends the period.
        self._ending: Any = None

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
        """End the period."""
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
