"""The signals that ask a command to end: Ctrl-C, SIGTERM, and the end of its terminal."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from bootvol.cli.failures import CommandFailed

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """A signal came.

    :param number: the signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = exit_code(number)


class Stop:
    """Remembers the signals that came.

    :ivar numbers: the numbers of these signals.
    """

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self._breaks_off = False

    def __call__(self, number: int) -> None:
        """Remember a signal; raise within :meth:`breaking_off`."""
        self.numbers.append(number)
        if self._breaks_off:
            raise Interrupted(number)

    @contextmanager
    def breaking_off(self) -> Iterator[None]:
        """Break off the block, which waits for the service, when a signal comes.

        :raises CommandFailed: if a signal came.
        """
        self._breaks_off = True
        try:
            yield
        except Interrupted as interrupted:
            raise CommandFailed("interrupted", interrupted.exit_code) from None
        finally:
            self._breaks_off = False


def exit_code(number: int) -> int:
    """Return the exit code that shells use for a command that a signal ended."""
    return 128 + number


@contextmanager
def handled(by: Callable[[int], None]) -> Iterator[None]:
    """Call ``by`` with the number of each signal that comes within the block."""

    def handle(number: int, _frame: FrameType | None) -> None:
        by(number)

    before = {each: signal.signal(each, handle) for each in _SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def interrupt(number: int) -> None:
    """Raise :class:`Interrupted` for a signal."""
    raise Interrupted(number)
