"""The contract suite, on thick and thin logical volumes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bootvol.interfaces import IBlockBackend, PluginContext
from bootvol.testing.backends import BlockBackendContract
from bootvol.testing.elsewhere import Elsewhere
from bootvol_plugins.lvm import PLUGIN
from bootvol_plugins.lvm.options import LvmOptions
from tests.copies import AnyBytes
from tests.lvm.groups import DISKS, empty, group

_GROUP = "suite"


def thick(context: PluginContext, _folder: Path) -> IBlockBackend:
    """Make a backend of thick volumes, also in other processes."""
    return PLUGIN.factory(LvmOptions(group=_GROUP), context)


def thin(context: PluginContext, _folder: Path) -> IBlockBackend:
    """Make a backend of thin volumes, also in other processes."""
    return PLUGIN.factory(LvmOptions(group=_GROUP, pool="pool"), context)


class OnGroup(AnyBytes, BlockBackendContract):
    """Volumes in a group with bytes left by other tests."""

    pool: str | None = None
    make = staticmethod(thick)

    @pytest.fixture(scope="class")
    @classmethod
    def made(cls) -> Iterator[str]:
        with group(_GROUP, DISKS[0], cls.pool and "300m") as name:
            yield name

    @pytest.fixture
    def backend(self, made: str, context: PluginContext, tmp_path: Path) -> Iterator[IBlockBackend]:
        yield self.make(context, tmp_path)
        empty(made)

    @pytest.fixture
    def elsewhere(self, tmp_path: Path) -> Elsewhere:
        return Elsewhere(self.make, tmp_path)


class TestThick(OnGroup):
    """Volumes with extents of their own."""


class TestThin(OnGroup):
    """Volumes in a pool."""

    pool = "pool"
    make = staticmethod(thin)
