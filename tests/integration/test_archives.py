"""Archives with one disk, as clouds and virtualization tools publish images."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred

from bootvol.testing.backends import noise
from tests.daemons import Running
from tests.images import MIB, convert

DISK = noise(510) + b"\x55\xaa" + noise(3 * MIB - 512) + bytes(5 * MIB)
STREAMED = ("-o", "subformat=streamOptimized")


def pack(folder: Path, names: list[str], *options: str) -> bytes:
    """Return a tar archive of one disk, or of several with descriptions."""
    for name in names:
        content = b"<Envelope/>"
        if name.endswith("vmdk"):
            content = convert(folder, "vmdk", STREAMED, DISK)
        elif name.endswith("raw"):
            content = DISK
        (folder / name).write_bytes(content)
    subprocess.run(["tar", *options, "-cf", "archive", *names], cwd=folder, check=True)
    return (folder / "archive").read_bytes()


@pytest.mark.parametrize(
    ("names", "options"),
    [
        (["disk.raw"], ["--format=oldgnu", "-S", "-z"]),
        (["vm.ovf", "vm.mf", "vm-disk1.vmdk"], ["--format=ustar"]),
        (["vm.ovf", "vm-disk1.vmdk"], ["--format=ustar", "-z"]),
    ],
    ids=["google", "ova", "packed-ova"],
)
@ensureDeferred
async def test_the_disk_becomes_the_volume(
    running: Running, tmp_path: Path, names: list[str], options: list[str]
) -> None:
    (running.images / "archive").write_bytes(pack(tmp_path, names, *options))
    number = await running.create("archive")
    assert await running.until(number, "available", "error") == "available"
    (volume,) = running.files()
    assert volume.read_bytes()[: len(DISK)] == DISK


@pytest.mark.parametrize(
    ("names", "code"),
    [(["vm.ovf"], "unsupported-format"), (["vm.ovf", "a.vmdk", "b.vmdk"], "image-ambiguous")],
)
@ensureDeferred
async def test_archives_without_the_one_disk(
    running: Running, tmp_path: Path, names: list[str], code: str
) -> None:
    (running.images / "archive").write_bytes(pack(tmp_path, names))
    number = await running.create("archive")
    assert await running.until(number, "available", "error") == "error"
    assert (await running.progress(number))["error"]["code"] == code
