"""The backend is right when it passes bootvol's contract suite, and fails as it should."""

from pathlib import Path

import pytest
from bootvol_shelf import PLUGIN, ShelfBackend, ShelfOptions
from pytest_twisted import ensureDeferred

from bootvol.errors import BackendFailed
from bootvol.interfaces import PluginContext
from bootvol.testing.backends import make_block_backend_tests
from bootvol.testing.contract import Contract


def _make(context: PluginContext, folder: Path) -> ShelfBackend:
    backend: ShelfBackend = PLUGIN.factory(ShelfOptions(directory=folder / "volumes"), context)
    return backend


TestShelf = make_block_backend_tests(_make)


class TestBeyondTheSuite(Contract):
    """The suite cannot know what else may lie where volumes do: that is yours to test."""

    @ensureDeferred
    async def test_what_is_no_volume_is_left_alone(
        self, context: PluginContext, tmp_path: Path
    ) -> None:
        backend = _make(context, tmp_path)
        elsewhere = tmp_path / "elsewhere"
        elsewhere.write_bytes(b"not ours")
        (tmp_path / "volumes" / "volume-1").symlink_to(elsewhere)
        with pytest.raises(BackendFailed):
            await backend.allocate("volume-1", 4096)
        with pytest.raises(BackendFailed):
            await backend.open_writer("volume-1")
        assert elsewhere.read_bytes() == b"not ours"
