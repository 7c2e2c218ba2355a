"""The suite of a configured backend, on volumes of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred

from bootvol.cli.check.configured import build
from bootvol.interfaces import IBlockBackend, IClosable, PluginContext
from bootvol.testing.backends import VOLUMES, BlockBackendContract


class TestBackend(BlockBackendContract):
    """The backend as its operator has configured it."""

    @pytest_twisted.async_yield_fixture
    async def backend(self, context: PluginContext) -> AsyncIterator[IBlockBackend]:
        backend = build(context)
        try:
            yield backend
        finally:
            try:
                for volume in VOLUMES:
                    await backend.delete(volume)
            finally:
                if IClosable.providedBy(backend):
                    await backend.close()

    @ensureDeferred
    async def test_shares_if_declared(self, backend: IBlockBackend, neighbours: Path) -> None:
        _not_here(backend)

    @ensureDeferred
    async def test_what_cannot_be_shared_leaves_nothing(
        self, backend: IBlockBackend, neighbours: Path
    ) -> None:
        _not_here(backend)


def _not_here(backend: IBlockBackend) -> None:
    if backend.capabilities.shares:
        pytest.skip("it would need files of its own beside the volumes")
