"""Every first-party backend, and the backend in memory, passes the same suite."""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_twisted

from bootvol.interfaces import IBlockBackend, IClosable, PluginContext
from bootvol.testing.backends import BlockBackendContract, make_block_backend_tests
from bootvol.testing.elsewhere import Elsewhere
from bootvol.testing.memory import MemoryBackend
from bootvol_plugins import rbd
from bootvol_plugins.file import PLUGIN, FileBackend
from bootvol_plugins.file_options import FileOptions
from bootvol_plugins.rbd.options import RbdOptions
from tests.ceph import Cluster
from tests.copies import EDGE, AnyBytes
from tests.disks import disk

_SETTINGS = "settings.json"


def file_backend(context: PluginContext, folder: Path) -> IBlockBackend:
    """Make a backend with a folder, also in other processes."""
    return FileBackend(context.name, folder, context.threads)


def rbd_backend(context: PluginContext, folder: Path) -> IBlockBackend:
    """Make a backend from the settings in a folder, also in other processes."""
    settings = json.loads((folder / _SETTINGS).read_text())
    return rbd.PLUGIN.factory(RbdOptions.model_validate(settings, strict=False), context)


class TestFile(AnyBytes, make_block_backend_tests(file_backend)):  # type: ignore[misc]
    examples, size = 0, 4 * EDGE


TestMemory = make_block_backend_tests(
    lambda context, _folder: MemoryBackend(context.name, context.reactor)
)
TestMemoryFullOfOldBytes = make_block_backend_tests(
    lambda context, _folder: MemoryBackend(
        context.name, context.reactor, fill=0xAA, block_size=4096, parallel_writes=3
    )
)


@pytest.mark.heavy
class OnDisk(AnyBytes, BlockBackendContract):
    """The file backend on a file system with block sharing.

    :cvar kind: the kind of file system.
    """

    kind: str

    @pytest.fixture
    def neighbours(self, tmp_path: Path) -> Iterator[Path]:
        with disk(tmp_path / "disk", 512 * 1024 * 1024, self.kind) as mounted:
            yield mounted.folder

    @pytest.fixture
    def backend(self, context: PluginContext, neighbours: Path) -> IBlockBackend:
        backend = PLUGIN.factory(FileOptions(directory=neighbours / "volumes"), context)
        assert backend.capabilities.clones
        assert backend.capabilities.shares
        return backend

    @pytest.fixture
    def elsewhere(self, neighbours: Path) -> Elsewhere:
        return Elsewhere(file_backend, neighbours / "volumes")


class TestFileOnXfs(OnDisk):
    kind = "xfs"


class TestFileOnBtrfs(OnDisk):
    kind = "btrfs"


class TestRbd(AnyBytes, BlockBackendContract):
    """A backend in a namespace of its own, so that tests may use the same names."""

    @pytest.fixture
    def put_image(self, ceph_cluster: Cluster) -> Callable[[bytes], str]:
        return ceph_cluster.put_image

    @pytest.fixture
    def elsewhere(self, tmp_path: Path) -> Elsewhere:
        return Elsewhere(rbd_backend, tmp_path)

    @pytest_twisted.async_yield_fixture
    async def backend(
        self,
        context: PluginContext,
        ceph_cluster: Cluster,
        tmp_path: Path,
    ) -> AsyncIterator[IBlockBackend]:
        namespace = ceph_cluster.add_namespace()
        # No client is killed here, so the cluster need not notice a dead one.
        settings = json.dumps({**ceph_cluster.options(namespace), "patience": 3}, default=str)
        (tmp_path / _SETTINGS).write_text(settings)
        backend = rbd_backend(context, tmp_path)
        yield backend
        await IClosable(backend).close()
