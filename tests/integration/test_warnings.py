"""Warnings of successful imports in the API."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred

from bootvol.testing.backends import noise
from tests.daemons import Running, pause
from tests.images import MIB, convert

BOOTS = noise(510) + b"\x55\xaa" + noise(MIB)
NOISE = noise(MIB)
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
    ],
)
@ensureDeferred
async def test_warnings_of_the_image(
    running: Running, tmp_path: Path, kind: str, warnings: list[str]
) -> None:
    name, *packings = kind.split("-")
    content = {"boots": BOOTS, "noise": NOISE}[name]
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


@ensureDeferred
async def test_images_that_nothing_identifies_can_be_refused(tmp_path: Path) -> None:
    """This includes images cached before the setting changed."""
    first = Running(tmp_path, backend="cache_gib = 10")
    (first.images / "boots").write_bytes(BOOTS)
    (first.images / "noise").write_bytes(NOISE)
    (first.images / "qcow2").write_bytes(convert(tmp_path, "qcow2", disk=NOISE))
    try:
        assert await first.until(await first.create("noise"), "available") == "available"
    finally:
        await first.stop()
    strict = Running(tmp_path, STRICT, backend="cache_gib = 10")
    before = len(strict.files())
    try:
        for name, status in (("boots", "available"), ("noise", "error"), ("qcow2", "error")):
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
