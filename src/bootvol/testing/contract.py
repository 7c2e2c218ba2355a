"""The common parts of the contract suites."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.internet import reactor

from bootvol.interfaces import PluginContext
from bootvol.threads import Threads


class Contract:
    """The root of every suite."""

    @pytest.fixture
    def context(self) -> Iterator[PluginContext]:
        """Provide a context for one test, as the daemon does for a plugin."""
        threads = Threads(reactor, "contract", 4)  # type: ignore[arg-type]
        threads.start()
        yield PluginContext(reactor, threads, "under-test")
        threads.stop()
