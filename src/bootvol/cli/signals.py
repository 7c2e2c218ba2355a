"""What asks a command to end: Ctrl-C, SIGTERM, and the end of its terminal."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """A signal came.

    :param number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = exit_code(number)


def exit_code(number: int) -> int:
    """Return the exit code of a command that a signal has ended, as shells have it."""
    return 128 + number


@contextmanager
def handled(by: Callable[[int], None]) -> Iterator[None]:
    """Have ``by`` called with the number of each signal that comes within the block."""

    def handle(number: int, _frame: FrameType | None) -> None:
        by(number)

    before = {each: signal.signal(each, handle) for each in _SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def interrupt(number: int) -> None:
    """Raise what says that a signal came."""
    raise Interrupted(number)
