"""The suite of a configured backend, on new volumes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred

from bootvol.cli.check.configured import build, build_again
from bootvol.interfaces import IBlockBackend, IClosable, PluginContext
from bootvol.testing.backends import VOLUMES, BlockBackendContract
from bootvol.testing.elsewhere import Elsewhere


class TestBackend(BlockBackendContract):
    """The backend, as the operator has configured it."""

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

    @pytest.fixture
    def elsewhere(self, tmp_path: Path) -> Elsewhere:
        return Elsewhere(build_again, tmp_path)

    @ensureDeferred
    async def test_shares_if_declared(self, backend: IBlockBackend, neighbours: Path) -> None:
        _not_here(backend.capabilities.shares, "files")

    @ensureDeferred
    async def test_what_cannot_be_shared_leaves_nothing(
        self, backend: IBlockBackend, neighbours: Path
    ) -> None:
        _not_here(backend.capabilities.shares, "files")

    @ensureDeferred
    async def test_clones_images_if_declared(
        self, backend: IBlockBackend, put_image: Callable[[bytes], str]
    ) -> None:
        _not_here(backend.capabilities.clones_images, "images")

    @ensureDeferred
    async def test_an_image_that_cannot_be_cloned_leaves_nothing(
        self, backend: IBlockBackend, put_image: Callable[[bytes], str]
    ) -> None:
        _not_here(backend.capabilities.clones_images, "images")


def _not_here(declared: bool, what: str) -> None:
    if declared:
        pytest.skip(f"the check would need {what} of its own beside the volumes")
