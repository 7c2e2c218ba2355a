"""Warnings of successful imports in the API."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred

from bootvol.testing.backends import noise
from tests.daemons import Running, pause
from tests.images import FIXED, MIB, convert, gpt, mbr

BOOTS = noise(510) + b"\x55\xaa" + noise(MIB)
NOISE = noise(MIB)
#: The beginning of LUKS's header of version 2, and encrypted bytes.
LUKS = b"LUKS\xba\xbe\0\2" + noise(MIB - 8)
STRICT = "[imports]\nstrict_images = true\n"
#: The trailer of OpenWrt's images.
FOREIGN = bytes(8) + b'{ "metadata_version": "1.1" }\nFWx0\x01\x02\x03\x04\0\0\0\0'


async def codes(running: Running, number: int) -> list[str]:
    """Return the codes of an import's warnings."""
    return [each["code"] for each in (await running.progress(number))["warnings"]]


@pytest.mark.parametrize(
    ("kind", "warnings"),
    [
        ("boots", []),
        ("noise", ["unidentified-image"]),
        ("boots-gz", []),
        ("noise-gz", ["unidentified-image"]),
        ("boots-qcow2", []),
        ("noise-qcow2", ["unidentified-image"]),
        ("boots-gz-foreign", ["foreign-bytes"]),
        ("noise-qcow2-gz-foreign", ["foreign-bytes", "unidentified-image"]),
        ("luks", ["encrypted-image"]),
        ("luks-gz", ["encrypted-image"]),
        ("luks-qcow2", ["encrypted-image"]),
        ("boots-qcow2-as.qcow2", []),
        ("boots-qcow2-as.img", []),
        ("boots-qcow2-gz-as.QCOW2.gz", []),
        ("boots-qcow2-as.vmdk", ["unexpected-format"]),
        ("boots-as.vhdx.xz", ["unexpected-format"]),
        ("boots-gz-as.vhd", ["unexpected-format"]),
        ("boots-as.img", []),
        ("boots-as-flat.vmdk", []),
        ("boots-as..vmdk", ["unexpected-format"]),
    ],
)
@ensureDeferred
async def test_warnings_of_the_image(
    running: Running, tmp_path: Path, kind: str, warnings: list[str]
) -> None:
    name, *packings = kind.partition("-as")[0].split("-")
    content = {"boots": BOOTS, "noise": NOISE, "luks": LUKS}[name]
    for packing in packings:
        if packing == "qcow2":
            content = convert(tmp_path, "qcow2", disk=content)
        elif packing == "gz":
            content = gzip.compress(content)
        else:
            content += FOREIGN
    (running.images / kind).write_bytes(content)
    number = await running.create(kind)
    assert await running.until(number, "available", "error") == "available"
    assert await codes(running, number) == warnings
    again = await running.create(kind)
    assert await running.until(again, "available", "error") == "available"
    assert await codes(running, again) == warnings, "of a cached image, too"


@pytest.mark.parametrize("part", ["first", "second", "whole"])
@ensureDeferred
async def test_a_part_of_a_fixed_vhd(running: Running, tmp_path: Path, part: str) -> None:
    """The first part has no footer, and looks like a raw disk."""
    whole = convert(tmp_path, "vpc", FIXED, disk=BOOTS)
    half = len(whole) // 2
    content = {"first": whole[:half], "second": whole[half:], "whole": whole}[part]
    (running.images / "disk.vhd").write_bytes(content)
    number = await running.create("disk.vhd")
    ended = await running.until(number, "available", "error")
    assert ended == ("error" if part == "second" else "available")
    assert await codes(running, number) == (["unexpected-format"] if part == "first" else [])


def late(size: int) -> bytes:
    """Return the first sector of a disk with one partition, in the last sector."""
    return mbr(size, begin=size // 512 - 1)


@pytest.mark.parametrize("table", [late, gpt])
@pytest.mark.parametrize("form", ["raw", "gz", "qcow2"])
@ensureDeferred
async def test_a_part_of_a_disk(
    running: Running, tmp_path: Path, table: Callable[[int], bytes], form: str
) -> None:
    for size, warnings in ((2 * MIB, []), (2 * MIB - 512, ["short-image"])):
        content = table(2 * MIB).ljust(size, b"\1")
        if form != "raw":
            content = (
                gzip.compress(content) if form == "gz" else convert(tmp_path, form, disk=content)
            )
        (running.images / f"{size}").write_bytes(content)
        number = await running.create(f"{size}")
        assert await running.until(number, "available", "error") == "available"
        assert await codes(running, number) == warnings


@ensureDeferred
async def test_a_disk_that_ends_within_its_last_partition(running: Running) -> None:
    """OpenWrt leaves the padding of the last partition out."""
    (running.images / "disk").write_bytes(mbr(2 * MIB).ljust(MIB, b"\1"))
    number = await running.create("disk")
    assert await running.until(number, "available", "error") == "available"
    assert await codes(running, number) == []


@ensureDeferred
async def test_images_that_nothing_identifies_can_be_refused(tmp_path: Path) -> None:
    """This includes images cached before the setting changed."""
    first = Running(tmp_path, backend="cache_gib = 10")
    (first.images / "boots").write_bytes(BOOTS)
    (first.images / "noise").write_bytes(NOISE)
    (first.images / "luks").write_bytes(LUKS)
    (first.images / "qcow2").write_bytes(convert(tmp_path, "qcow2", disk=NOISE))
    try:
        for name in ("noise", "luks"):
            assert await first.until(await first.create(name), "available") == "available"
    finally:
        await first.stop()
    strict = Running(tmp_path, STRICT, backend="cache_gib = 10")
    before = len(strict.files())
    try:
        for name in ("boots", "luks", "noise", "qcow2"):
            status = "available" if name == "boots" else "error"
            number = await strict.create(name)
            assert await strict.until(number, "available", "error") == status
        error = (await strict.progress(number))["error"]
        assert error["code"] == "image-unidentified"
        assert "strict_images" in error["remedy"]
        # The good volume, and its cached image.
        assert len(strict.files()) == before + 2
    finally:
        await strict.stop()


@ensureDeferred
async def test_an_import_that_begins_again_after_a_restart_says_so(tmp_path: Path) -> None:
    slow = "[imports]\nbandwidth_mib = 1\nbuffer_kib = 64\n"
    first = Running(tmp_path, slow)
    (first.images / "packed").write_bytes(gzip.compress(noise(510) + b"\x55\xaa" + noise(4 * MIB)))
    number = await first.create("packed")
    while not (await first.progress(number))["bytesDone"]:
        await pause(0.05)
    assert await codes(first, number) == []
    # Progress is saved at intervals.
    await pause(1)
    await first.stop()
    second = Running(tmp_path)
    try:
        assert await second.until(number, "available", "error") == "available"
        assert await codes(second, number) == ["started-over"]
        assert (await second.progress(number))["attempt"] == 2
    finally:
        await second.stop()
