"""Fixtures that several kinds of tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_twisted

from tests.daemons import Running


@pytest_twisted.async_yield_fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    """A daemon on the embedded default, in this process."""
    daemon = Running(tmp_path)
    yield daemon
    await daemon.stop()
