"""The memory that the threads of a daemon keep."""

from __future__ import annotations

import subprocess
import sys

#: Begins a daemon, runs threads that allocate memory at once, and prints glibc's list of its heaps.
_CODE = """
import ctypes, os, sys, threading
from twisted.python.usage import UsageError
from bootvol.tap import Options

try:
    Options().parseOptions(["--config", "/nonexistent"])
except UsageError:
    pass
else:
    sys.exit("the daemon has begun")

together = threading.Barrier(8)

def allocate():
    together.wait()
    kept = [bytes(100_000) for _ in range(100)]
    together.wait()

threads = [threading.Thread(target=allocate) for _ in range(8)]
for each in threads:
    each.start()
for each in threads:
    each.join()
libc = ctypes.CDLL(None)
libc.fdopen.restype = ctypes.c_void_p
output = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, output)
libc.fflush(output)
"""


def test_threads_share_a_few_heaps() -> None:
    """Each further heap keeps free memory.

    Break: `src/bootvol/tap.py`: `mallopt(_M_ARENA_MAX, _HEAPS)` -> `pass`
    """
    run = subprocess.run([sys.executable, "-c", _CODE], check=True, capture_output=True, text=True)
    assert run.stdout.count("<heap nr=") in {1, 2}
