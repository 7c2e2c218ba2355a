"""Volumes that share the blocks of their images: xfs and btrfs."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread

from bootvol.model import GIB
from bootvol.testing.backends import noise
from bootvol_plugins.file import FileBackend
from tests.daemons import Running
from tests.disks import Disk, disk
from tests.images import DISK, MIB, qcow2

CONTENT = noise(16 * MIB + 77)
#: Room for sparse volumes of 1 GiB.
SPACE = 3 * GIB
READ_BACK = '[imports]\nverify = "read-back"\n'


@pytest.fixture(params=["xfs", "btrfs"])
def mounted(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    """A disk for volumes and images. The test's parameter may choose the kind."""
    with disk(tmp_path / "disk", SPACE, request.param) as mounted:
        yield mounted


def daemon(mounted: Disk, more: str = "") -> Running:
    """Return a daemon with all folders on the disk, and with an empty image cache."""
    return Running(mounted.folder, more, backend="cache_gib = 0")


@pytest_twisted.async_yield_fixture
async def on_disk(mounted: Disk) -> AsyncIterator[Running]:
    """A daemon with all folders on the disk."""
    running = daemon(mounted)
    yield running
    await running.stop()


def put(running: Running, content: bytes, **stated: str) -> None:
    """Make an image "disk" with a stated digest and format."""
    (running.images / "disk.raw").write_bytes(content)
    lines = "".join(f'{key} = "{value}"\n' for key, value in stated.items())
    index = f'[[images]]\nid = "disk"\nfile = "disk.raw"\n{lines}'
    (running.images / "index.toml").write_text(index)


async def taken(running: Running, mounted: Disk) -> int:
    """Make a volume of the image; check the content; return the space taken by the volume."""
    free = await deferToThread(mounted.free)
    number = await running.create("disk")
    settled = await running.until(number, "available", "error")
    progress = await running.progress(number)
    assert settled == "available", progress
    assert progress["bytesDone"] == len(CONTENT)
    (file,) = running.files()
    assert file.stat().st_size == GIB
    with file.open("rb") as volume:
        assert volume.read(len(CONTENT)) == CONTENT
        assert not any(volume.read(MIB))
    return free - await deferToThread(mounted.free)


async def refused(running: Running) -> dict[str, Any]:
    """Make a volume of the image, without success; return the error."""
    number = await running.create("disk")
    assert await running.until(number, "available", "error") == "error"
    assert running.files() == [], "its space is given back"
    return dict((await running.progress(number))["error"])


@pytest.mark.parametrize("more", ["", READ_BACK])
@pytest.mark.parametrize("stated", [True, False])
@ensureDeferred
async def test_the_first_volume_needs_no_copy(mounted: Disk, stated: bool, more: str) -> None:
    running = daemon(mounted, more)
    try:
        digest = {"sha512": hashlib.sha512(CONTENT).hexdigest()} if stated else {}
        put(running, CONTENT, format="raw", **digest)
        assert await taken(running, mounted) < MIB
        (file,) = running.files()
        # Neither sees later writes to the other.
        with (running.images / "disk.raw").open("r+b") as image:
            image.write(b"\0" * MIB)
        with file.open("r+b") as volume:
            assert volume.read(MIB) == CONTENT[:MIB]
            volume.seek(MIB)
            volume.write(b"\0" * MIB)
        found = (running.images / "disk.raw").read_bytes()
        assert found[MIB:] == CONTENT[MIB:]
    finally:
        await running.stop()


@ensureDeferred
async def test_a_digest_that_does_not_match(mounted: Disk, on_disk: Running) -> None:
    put(on_disk, CONTENT, sha512="0" * 128)
    free = mounted.free()
    assert (await refused(on_disk))["code"] == "digest-mismatch"
    assert abs(free - await deferToThread(mounted.free)) < MIB


@pytest.mark.parametrize("mounted", ["xfs"], indirect=True)
@ensureDeferred
async def test_what_is_no_disk_is_refused(on_disk: Running) -> None:
    for content, code in (
        (b"<html></html>", "not-a-disk"),
        (b"", "not-a-disk"),
        (b"QED\0" + CONTENT, "unsupported-format"),
    ):
        put(on_disk, content)
        assert (await refused(on_disk))["code"] == code
    with (on_disk.images / "disk.raw").open("r+b") as image:
        image.write(b"\1")
        image.truncate(GIB + 1)
    assert (await refused(on_disk))["code"] == "image-too-large"


@pytest.mark.parametrize("mounted", ["xfs"], indirect=True)
@ensureDeferred
async def test_what_is_packed_is_unpacked(mounted: Disk, on_disk: Running, tmp_path: Path) -> None:
    put(on_disk, gzip.compress(CONTENT, 1))
    assert await taken(on_disk, mounted) > len(CONTENT) - MIB
    await on_disk.call("DELETE", "os-volumes/1")
    await on_disk.until(1, "gone")
    put(on_disk, qcow2(tmp_path))
    number = await on_disk.create("disk")
    assert await on_disk.until(number, "available", "error") == "available"
    (file,) = on_disk.files()
    with file.open("rb") as volume:
        assert volume.read(len(DISK)) == DISK


@pytest.mark.parametrize("mounted", ["ext4"], indirect=True)
@ensureDeferred
async def test_where_files_share_nothing_it_is_copied(mounted: Disk, on_disk: Running) -> None:
    put(on_disk, CONTENT)
    assert await taken(on_disk, mounted) > len(CONTENT) - MIB


@pytest.mark.parametrize("mounted", ["xfs"], indirect=True)
@ensureDeferred
async def test_an_image_elsewhere_is_copied(
    mounted: Disk, on_disk: Running, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    on_disk.images.rmdir()
    on_disk.images.symlink_to(tmp_path / "elsewhere")
    put(on_disk, CONTENT)
    assert await taken(on_disk, mounted) > len(CONTENT) - MIB


@pytest.mark.parametrize("mounted", ["xfs"], indirect=True)
@ensureDeferred
async def test_an_image_that_is_written_to_while_it_is_shared(
    on_disk: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mixed content was never meant by anybody: bootvol shares the blocks once more."""
    put(on_disk, CONTENT[:-MIB] + bytes(MIB))
    share = FileBackend.share
    shared: list[int | None] = []

    async def written_to(self: FileBackend, file: int, volume: str, size: int) -> int | None:
        shared.append(await share(self, file, volume, size))
        if len(shared) == 1:
            (on_disk.images / "disk.raw").write_bytes(CONTENT)
        return shared[-1]

    monkeypatch.setattr(FileBackend, "share", written_to)
    number = await on_disk.create("disk")
    assert await on_disk.until(number, "available", "error") == "available"
    assert shared == [len(CONTENT), len(CONTENT)]
    (file,) = on_disk.files()
    with file.open("rb") as volume:
        assert volume.read(len(CONTENT)) == CONTENT


@pytest.mark.parametrize("mounted", ["xfs"], indirect=True)
@ensureDeferred
async def test_shared_blocks_need_no_room(mounted: Disk, on_disk: Running) -> None:
    """The volume is larger than the free space of the disk, but takes next to nothing."""
    put(on_disk, CONTENT)
    await deferToThread(mounted.fill, mounted.folder / "others", GIB - 8 * MIB)
    assert await taken(on_disk, mounted) < MIB
