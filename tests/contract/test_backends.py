"""Every first-party backend, and the one in memory, passes the same suite."""

from bootvol.testing.backends import make_block_backend_tests
from bootvol.testing.memory import MemoryBackend
from bootvol_plugins.file import FileBackend

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
