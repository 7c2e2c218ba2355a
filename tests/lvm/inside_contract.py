"""The contract suite, on thick and thin logical volumes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bootvol.interfaces import IBlockBackend, PluginContext
from bootvol.testing.backends import BlockBackendContract
from bootvol_plugins.lvm import PLUGIN
from bootvol_plugins.lvm.options import LvmOptions
from tests.lvm.groups import DISKS, empty, group


class OnGroup(BlockBackendContract):
    """Volumes in a group, where other tests have left what they wrote."""

    pool: str | None = None

    @pytest.fixture(scope="class")
    @classmethod
    def made(cls) -> Iterator[str]:
        with group("suite", DISKS[0], cls.pool and "300m") as name:
            yield name

    @pytest.fixture
    def backend(self, made: str, context: PluginContext) -> Iterator[IBlockBackend]:
        yield PLUGIN.factory(LvmOptions(group=made, pool=self.pool), context)
        empty(made)


class TestThick(OnGroup):
    """Extents of their own."""


class TestThin(OnGroup):
    """In a pool."""

    pool = "pool"
