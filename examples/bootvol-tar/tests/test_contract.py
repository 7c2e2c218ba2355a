"""The plugin passes bootvol's contract suite."""

import tarfile
from pathlib import Path

from bootvol_tar import TarSource

from bootvol.interfaces import PluginContext
from bootvol.testing.backends import noise
from bootvol.testing.sources import Subject, make_image_source_tests

CONTENT = noise(1024 * 1024 + 99)


def _make(context: PluginContext, folder: Path) -> Subject:
    disk = folder / "disk.raw"
    disk.write_bytes(CONTENT)
    with tarfile.open(folder / "images.tar", "w:") as archive:
        archive.add(disk, "first.raw")
        archive.add(disk, "folder/disk.raw")
    source = TarSource(context.name, folder / "images.tar", context.threads)
    return Subject(source, ("folder/disk.raw", CONTENT))


TestTar = make_image_source_tests(_make)
