"""Many imports at once: all are right, the API answers meanwhile, and memory stays bounded."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

from bootvol.model import GIB
from tests.processes import process
from tests.waiting import block_until

IMAGE = 256 * 1024 * 1024
#: Python and the libraries take 105 MiB, and the buffers of four copies 40 MiB. A busy machine has
#: more threads and requests at the peak.
MOST_MEMORY = 184 * 1024 * 1024


def test_twenty_at_once(tmp_path: Path) -> None:
    with process(tmp_path, "[quota]\nvolumes = 20\n") as daemon:
        digest = hashlib.sha256()
        with (daemon.images / "disk.raw").open("wb") as file:
            for _ in range(IMAGE // 2**20):
                piece = os.urandom(2**20)
                digest.update(piece)
                file.write(piece)
        for _ in range(20):
            daemon.create("disk.raw")
        answers = 0
        while {"creating", "downloading"} & set(daemon.statuses()):
            answers += 1
            time.sleep(0.02)
        assert daemon.statuses() == ["available"] * 20, daemon.log.read_text()
        assert answers > 20, "the list was to be seen while imports ran"
        assert daemon.peak_memory() < MOST_MEMORY
        # The cached image of the imports that waited is deleted after the last of them.
        files = block_until(daemon.files, lambda found: len(found) == 20)
        for file_path in files:
            assert file_path.stat().st_size == GIB
            with file_path.open("rb") as volume:
                found = hashlib.sha256()
                for _ in range(IMAGE // 2**20):
                    found.update(volume.read(2**20))
                assert found.digest() == digest.digest()
                assert not any(volume.read(2**20))
            file_path.unlink()
