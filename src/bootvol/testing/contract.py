"""The common parts of the contract suites."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bootvol.interfaces import PluginContext
from bootvol.reactors import installed
from bootvol.threads import Threads


class Contract:
    """The root of every suite."""

    @pytest.fixture
    def context(self) -> Iterator[PluginContext]:
        """Provide a context for one test, as the daemon does for a plugin."""
        reactor = installed()
        threads = Threads(reactor, "contract", 4)
        threads.start()
        yield PluginContext(reactor, threads, "under-test")
        threads.stop()
