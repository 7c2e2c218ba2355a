"""The signals that ask a command to end: Ctrl-C, SIGTERM, and the end of its terminal."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """A signal came.

    :param number: the signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = exit_code(number)


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
