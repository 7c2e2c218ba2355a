"""The first bytes of an image: disks are recognized, and other formats are refused by name."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootvol.errors import ImportFailed, NotADisk, UnsupportedFormat
from bootvol.imaging import magics
from bootvol.imaging.inspect import HEAD, Inspection
from bootvol.testing.backends import noise
from tests.fuzz import fuzz
from tests.images import MIB

_TABLES = [(magics._UNREAD, UnsupportedFormat), (magics._OTHERS, NotADisk)]
_ENTRIES = [
    pytest.param(offset, magic, name, kind, id=f"{name}-{magic!r}")
    for table, kind in _TABLES
    for (offset, magic), name in table.items()
]


def test_many_kinds_are_known() -> None:
    names = {name for table, _ in _TABLES for name in table.values()}
    assert len(names) >= 60


@pytest.mark.parametrize(("offset", "magic", "name", "kind"), _ENTRIES)
def test_what_begins_so_is_refused_by_name(
    offset: int, magic: bytes, name: str, kind: type[ImportFailed]
) -> None:
    head = bytearray(noise(HEAD))
    head[offset : offset + len(magic)] = magic
    with pytest.raises(kind) as refused:
        Inspection(None).begin(memoryview(head))
    assert name.split(" (")[0] in str(refused.value)
    if len(magic) < 4:
        # A few such bytes may occur in a disk by chance.
        head[510:512] = b"\x55\xaa"
        Inspection(None).begin(memoryview(head))


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
def test_a_compressed_image_with_a_signature_by_chance(pack: Callable[[bytes], bytes]) -> None:
    """If a volume shares the image's blocks, no other check finds the compression."""
    packed = bytearray(pack(noise(HEAD)))
    packed[510:512] = b"\x55\xaa"
    with pytest.raises(UnsupportedFormat):
        Inspection(None).begin(memoryview(packed))


def _tar(layout: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=layout) as tar:
        for name in ("one", "two"):
            info = tarfile.TarInfo(name)
            info.size = 1000
            tar.addfile(info, io.BytesIO(bytes(1000)))
    return out.getvalue()


def _zip() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("disk.img", noise(1000))
    return out.getvalue()


def _program() -> bytes:
    return b"MZ".ljust(60, b"\1") + (128).to_bytes(4, "little") + bytes(64) + b"PE\0\0" + noise(99)


REAL: dict[str, tuple[str, Callable[[], bytes]]] = {
    "ustar": ("a tar archive", lambda: _tar(tarfile.USTAR_FORMAT)),
    "pax": ("a tar archive", lambda: _tar(tarfile.PAX_FORMAT)),
    "gnu": ("a tar archive", lambda: _tar(tarfile.GNU_FORMAT)),
    "zip": ("a zip archive", _zip),
    "lzma": ("lzma", lambda: lzma.compress(noise(9999), lzma.FORMAT_ALONE)),
    "lzma-9": ("lzma", lambda: lzma.compress(noise(9999), lzma.FORMAT_ALONE, preset=9)),
    "elf": ("ELF", lambda: Path(sys.executable).read_bytes()),
    "pe": ("PE", _program),
}


@pytest.mark.parametrize("kind", REAL)
def test_real_files_are_refused_by_name(kind: str) -> None:
    name, make = REAL[kind]
    with pytest.raises(ImportFailed, match=name):
        Inspection(None).begin(memoryview(make()))


@pytest.mark.parametrize(
    "text",
    [b"All work and no play. " * 9000, b"not found\n", "\ufeffnicht gefunden: ähnlich\n".encode()],
)
def test_a_text_is_no_disk(text: bytes) -> None:
    with pytest.raises(NotADisk):
        Inspection(None).begin(memoryview(text))


def test_an_apple_disk_image_is_told_by_its_end() -> None:
    inspection = Inspection("raw")
    inspection.begin(memoryview(noise(HEAD)))
    inspection.more(memoryview(noise(4096) + b"koly\0\0\0\4\0\0\2\0".ljust(512, b"\0")))
    with pytest.raises(UnsupportedFormat, match="dmg"):
        inspection.finish()


def told(content: bytes, piece: int = HEAD) -> Inspection:
    """Return the inspection of a complete image, received in pieces."""
    inspection = Inspection(None)
    inspection.begin(memoryview(content[:HEAD]))
    for start in range(HEAD, len(content), piece):
        inspection.more(memoryview(content[start : start + piece]))
    inspection.finish()
    return inspection


@pytest.mark.parametrize(
    "command",
    [
        "mkfs.ext4 -q",
        "mkfs.xfs -q",
        "mkfs.btrfs -q",
        "mkfs.minix",
        "mkswap",
        "mkswap --pagesize 65536",
    ],
)
def test_file_systems_are_known(tmp_path: Path, command: str) -> None:
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(320 * MIB)
    subprocess.run([*command.split(), image], check=True, capture_output=True)
    with image.open("rb") as file:
        assert not told(file.read(MIB)).tells_nothing


@pytest.mark.parametrize("place", sorted(magics._DISKS))
@pytest.mark.parametrize("piece", [4096, HEAD])
def test_what_tells_a_disk(place: tuple[int, bytes], piece: int) -> None:
    offset, magic = place
    content = bytearray(2 * HEAD)
    content[offset : offset + len(magic)] = magic
    assert not told(bytes(content), piece).tells_nothing


@pytest.mark.parametrize(
    "content", [b"\0", bytes(512), bytes(2 * HEAD), noise(100), noise(2 * HEAD)]
)
def test_what_tells_nothing(content: bytes) -> None:
    inspection = Inspection(None)
    inspection.begin(memoryview(content[:HEAD]))
    assert inspection.tells_nothing is False, "it is not known yet"
    assert told(content).tells_nothing


def test_zeros_that_nobody_reads_count() -> None:
    inspection = Inspection(None)
    inspection.begin(memoryview(noise(HEAD)))
    inspection.skip(magics.LOOK)
    assert inspection.tells_nothing


@fuzz(100)
@given(st.binary(max_size=1024))
def test_whatever_comes_is_judged(content: bytes) -> None:
    refused = magics.refusal(content)
    assert refused is None or str(refused).endswith(".")
