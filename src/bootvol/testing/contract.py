"""What the contract suites share."""

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
        """What the daemon would lend to the plugin, for one test."""
        threads = Threads(reactor, "contract", 4)  # type: ignore[arg-type]
        threads.start()
        yield PluginContext(reactor, threads, "under-test")
        threads.stop()
