"""Fixtures that several unit tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.internet import reactor

from bootvol.threads import Threads


@pytest.fixture
def threads() -> Iterator[Threads]:
    """A small pool of threads that runs."""
    threads = Threads(reactor, "test", 2)  # type: ignore[arg-type]
    threads.start()
    yield threads
    threads.stop()
