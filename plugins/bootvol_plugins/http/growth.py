"""Decides how many connections one image is worth."""

from __future__ import annotations

from typing import Final

#: Seconds of one measurement.  New connections need some of these to become fast.
PERIOD: Final = 2.0
#: Part of the rate that new connections should bring, if each were as fast as those before.
_WORTH: Final = 0.25
#: The first and the longest time in seconds until more connections are tried again.
_FIRST_PAUSE: Final = 10.0
_LONGEST_PAUSE: Final = 160.0


class Growth:
    """The number of connections: doubled while that makes the stream clearly faster.

    A server may be limited as a whole, and not by connection.  More connections to such a server
    would only take from others.

    :param most: the most connections.
    :param now: the time in seconds.
    :ivar level: the number of connections to have.
    """

    def __init__(self, most: int, now: float) -> None:
        self._most = most
        self.level = 1
        #: The level and the rate before the current trial.
        self._before: tuple[int, float] | None = None
        #: The level and the rate of the last trial in vain, until the rate without is known.
        self._in_vain: tuple[int, float] | None = None
        self._pause = _FIRST_PAUSE
        self._not_before = now
        self._began, self._bytes = now, 0

    def begin(self, rate: float, now: float, received: int) -> None:
        """Try more connections for the first time.

        :param rate: bytes per second of one connection.
        :param received: number of bytes received so far.
        """
        self._grow(rate, now, received)

    def measure(self, now: float, received: int, *, reader_waits: bool) -> None:
        """Measure the rate from time to time, and set the level.

        :param received: number of bytes received so far, over all connections.
        :param reader_waits: whether the reader waits for bytes.  Otherwise the reader sets the
            pace, and the rate tells nothing.
        """
        if not reader_waits:
            self._restart(now, received)
            return
        seconds = now - self._began
        if seconds < PERIOD:
            return
        rate = (received - self._bytes) / seconds
        before, self._before = self._before, None
        in_vain, self._in_vain = self._in_vain, None
        if before is not None and not _pays(before, (self.level, rate)):
            self._in_vain = (self.level, rate)
            self.level = before[0]
            self._wait(now, 0.0)
        elif in_vain is not None and _pays((self.level, rate), in_vain):
            # The server or the line has become slower meanwhile.
            self._not_before = now
        if self.level < self._most and now >= self._not_before:
            self._grow(rate, now, received)
        self._restart(now, received)

    def fail(self, alive: int, now: float, received: int, pause: float) -> None:
        """Note a failed connection: have only the others for a while.

        :param alive: number of the other connections.
        :param pause: seconds that the server demands until another request.
        """
        self.level = max(1, min(self.level, alive))
        self._before = None
        self._wait(now, pause)
        self._restart(now, received)

    def _grow(self, rate: float, now: float, received: int) -> None:
        self._before = (self.level, rate)
        self.level = min(2 * self.level, self._most)
        self._restart(now, received)

    def _wait(self, now: float, pause: float) -> None:
        self._not_before = now + max(pause, self._pause)
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def _restart(self, now: float, received: int) -> None:
        self._began, self._bytes = now, received


def _pays(fewer: tuple[int, float], more: tuple[int, float]) -> bool:
    """Tell whether more connections have brought a clearly higher rate.

    :param fewer: a number of connections and their rate; ``more`` likewise.
    """
    return more[1] >= fewer[1] * (1 + _WORTH * (more[0] / fewer[0] - 1))
