"""Images in containers: good ones become the disk inside, hostile ones are refused by name."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from bootvol.model import GIB
from tests.daemons import Running
from tests.images import DISK, FIXED, GOOD, HOSTILE, MIB, PACKERS, qemu_img

#: Images that need the spool: a compressed image has no tables to read ahead, the subclusters of
#: one are smaller than the backend's blocks, the clusters of one exceed a buffer, and one has its
#: tables before its grains as well as a footer.
SPOOLED = {"qcow2-gz", "qcow2-extended", "qcow2-cut-cluster", "vmdk-stream-end"}


def state(running: Running, name: str, image_format: str | None) -> None:
    """Let the source state the format of an image."""
    if image_format is not None:
        (running.images / "index.toml").write_text(
            f'[[images]]\nid = "{name}"\nfile = "{name}"\nformat = "{image_format}"\n'
        )


@pytest.mark.parametrize("name", GOOD)
@ensureDeferred
async def test_the_disk_in_a_container(running: Running, tmp_path: Path, name: str) -> None:
    stated, make = GOOD[name]
    (running.images / name).write_bytes(make(tmp_path))
    state(running, name, stated)
    number = await running.create(name)
    settled = await running.until(number, "available", "error")
    progress = await running.progress(number)
    assert settled == "available", progress
    (file,) = running.files()
    with file.open("rb") as volume:
        assert volume.read(len(DISK)) == DISK
        assert not any(volume.read(1024 * 1024))
    assert file.stat().st_blocks * 512 < 5 * 1024 * 1024, "its holes take no space"
    assert progress["bytesDone"] == progress["bytesTotal"] >= len(DISK)
    spool = running.folder / "var" / "spool"
    if name.startswith(("qcow2", "vmdk-stream", "vdi")) and name not in SPOOLED:
        assert not spool.exists(), "the disk is written while the image arrives"
    else:
        assert list(spool.iterdir()) == []


@pytest.mark.parametrize("kind", PACKERS)
@ensureDeferred
async def test_a_packed_container_from_a_slow_disk(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The decompressor waits for the source, also for a container."""
    read = os.preadv

    def slowly(*arguments: Any) -> int:
        time.sleep(0.05)
        return read(*arguments)

    running = Running(tmp_path, "[imports]\nbuffer_kib = 512\n")
    try:
        (running.images / "image").write_bytes(PACKERS[kind](GOOD["qcow2"][1](tmp_path)))
        monkeypatch.setattr(os, "preadv", slowly)
        number = await running.create("image")
        settled = await running.until(number, "available", "error")
        assert settled == "available", await running.progress(number)
        (file,) = running.files()
        with file.open("rb") as volume:
            assert volume.read(len(DISK)) == DISK
    finally:
        await running.stop()


@ensureDeferred
async def test_a_container_that_is_told_after_checkpoints(tmp_path: Path) -> None:
    running = Running(tmp_path, "[imports]\ncheckpoint_mib = 1\nbuffer_kib = 64\n")
    try:
        (running.images / "disk").write_bytes(GOOD["vhd-fixed-unstated"][1](tmp_path))
        number = await running.create("disk")
        settled = await running.until(number, "available", "error")
        assert settled == "available", await running.progress(number)
        (file,) = running.files()
        with file.open("rb") as volume:
            assert volume.read(len(DISK)) == DISK
            assert not any(volume.read(1024 * 1024)), "not even the footer"
    finally:
        await running.stop()


@ensureDeferred
async def test_a_vhd_whose_disk_has_the_size_of_the_volume(
    running: Running, tmp_path: Path
) -> None:
    """The form of Azure's images: 1 GiB of disk and a footer of 512 bytes."""
    disk, image = tmp_path / "disk.raw", running.images / "disk.vhd"
    disk.write_bytes(DISK)
    os.truncate(disk, GIB)
    qemu_img("convert", "-f", "raw", "-O", "vpc", *FIXED, disk, image)
    assert image.stat().st_size == GIB + 512
    number = await running.create("disk.vhd")
    settled = await running.until(number, "available", "error")
    assert settled == "available", await running.progress(number)
    (file,) = running.files()
    with file.open("rb") as volume:
        assert volume.read(len(DISK)) == DISK
        volume.seek(-MIB, os.SEEK_END)
        assert not any(volume.read()), "the footer is no part of the disk"


@pytest.mark.parametrize("name", HOSTILE)
@ensureDeferred
async def test_hostile_images_are_refused(running: Running, tmp_path: Path, name: str) -> None:
    """Each hostile image fails with its own error, and takes no space.

    Break: `src/bootvol/imaging/inspect.py`: `self._inspector.safety_check()` -> `pass`.
    Break: `src/bootvol/imaging/inspect.py`: `if len(found) + len(others) > 1:` -> `if len(found) >
    9:`.
    """
    hostile = HOSTILE[name]
    (running.images / name).write_bytes(hostile.make(tmp_path))
    state(running, name, hostile.stated)
    number = await running.create(name)
    assert await running.until(number, "available", "error") == "error"
    error = (await running.progress(number))["error"]
    assert error["code"] == hostile.code, error
    assert error["retryable"] is False
    assert "/proc" not in error["message"] + error["remedy"]
    assert running.files() == [], "its space is given back"
