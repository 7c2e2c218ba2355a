"""Every first-party backend, and the one in memory, passes the same suite."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_twisted

from bootvol.interfaces import IBlockBackend, IClosable, PluginContext
from bootvol.testing.backends import BlockBackendContract, make_block_backend_tests
from bootvol.testing.memory import MemoryBackend
from bootvol_plugins import rbd
from bootvol_plugins.file import PLUGIN, FileBackend, FileOptions
from bootvol_plugins.rbd.options import RbdOptions
from tests.ceph import Cluster
from tests.disks import disk

TestFile = make_block_backend_tests(
    lambda context, folder: FileBackend(context.name, folder, context.threads)
)
TestMemory = make_block_backend_tests(
    lambda context, _folder: MemoryBackend(context.name, context.reactor)
)
TestMemoryFullOfOldBytes = make_block_backend_tests(
    lambda context, _folder: MemoryBackend(
        context.name, context.reactor, fill=0xAA, block_size=4096, parallel_writes=3
    )
)


class OnDisk(BlockBackendContract):
    """The file backend on a file system whose files share blocks.

    :cvar kind: of file system.
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


class TestFileOnXfs(OnDisk):
    kind = "xfs"


class TestFileOnBtrfs(OnDisk):
    kind = "btrfs"


class TestRbd(BlockBackendContract):
    """In a namespace of its own, so that names may be used again."""

    @pytest.fixture
    def put_image(self, ceph_cluster: Cluster) -> Callable[[bytes], str]:
        return ceph_cluster.put_image

    @pytest_twisted.async_yield_fixture
    async def backend(
        self, context: PluginContext, ceph_cluster: Cluster
    ) -> AsyncIterator[IBlockBackend]:
        namespace = ceph_cluster.add_namespace()
        options = RbdOptions.model_validate(ceph_cluster.options(namespace), strict=False)
        backend = rbd.PLUGIN.factory(options, context)
        yield backend
        await IClosable(backend).close()
