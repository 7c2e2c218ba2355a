"""The first bytes of an image: disks are recognized, and other formats are refused by name."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootvol.errors import ImportFailed, NotADisk, UnsupportedFormat
from bootvol.imaging import magics, signatures
from bootvol.imaging.inspect import HEAD, Inspection
from bootvol.testing.backends import noise
from tests.fuzzing import fuzz
from tests.images import MIB

_TABLES = [(signatures.UNREAD, UnsupportedFormat), (signatures.OTHERS, NotADisk)]
_ENTRIES = [
    pytest.param(offset, magic, name, kind, id=f"{name}-{magic!r}")
    for table, kind in _TABLES
    for (offset, magic), name in table.items()
]


def test_many_kinds_are_known() -> None:
    names = {name for table, _ in _TABLES for name in table.values()}
    assert len(names) >= 120


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
    "zlib": ("zlib", lambda: zlib.compress(noise(99_999), 1)),
    "zlib-9": ("zlib", lambda: zlib.compress(b"text " * 99_999, 9)),
    "script": ("a script", lambda: b"#!/bin/sh\ntail -n +3 $0 | tar x\nexit\n" + noise(9999)),
    "elf": ("ELF", lambda: Path(sys.executable).read_bytes()),
    "pe": ("PE", _program),
}


@pytest.mark.parametrize("kind", REAL)
def test_real_files_are_refused_by_name(kind: str) -> None:
    name, make = REAL[kind]
    with pytest.raises(ImportFailed, match=name):
        Inspection(None).begin(memoryview(make()))


def bitmap(second: int, start: int = 54, reserved: int = 0) -> bytes:
    """Return a bitmap with a second header of some size."""
    return b"BM" + struct.pack("<IIII", 70_000, reserved, start, second) + noise(70_000)


def icon(count: int = 1, depth: int = 32, start: int = 22) -> bytes:
    """Return an icon with some pictures."""
    head = struct.pack("<HHHBBBBHHII", 0, 1, count, 16, 16, 0, 0, 1, depth, 1128, start)
    return head + noise(70_000)


def sound(header: bytes, length: int, frames: int = 8) -> bytes:
    """Return frames of MPEG audio."""
    return (header + bytes(length - 4)) * frames + noise(HEAD)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (bitmap(40), "BMP"),
        (bitmap(124, start=138), "BMP"),
        (bitmap(12, start=26), "BMP"),
        (icon(), "ICO"),
        (icon(count=3, depth=0, start=54), "ICO"),
        # Lengths of frames as in F animation: 128 kbit/s at 44.1 kHz, and others.
        (sound(b"\xff\xfb\x90\x00", 417), "MP3"),
        (sound(b"\xff\xfb\x92\x00", 418), "MP3"),
        (sound(b"\xff\xfb\xe4\x00", 960), "MP3"),
        (sound(b"\xff\xf3\x80\xc4", 208), "MP3"),
        (sound(b"\xff\xe3\x18\xc4", 72), "MP3"),
        (sound(b"\xff\xfd\xa4\x00", 576), "MP3"),
    ],
)
def test_short_magics_count_with_the_structure_behind(content: bytes, name: str) -> None:
    with pytest.raises(NotADisk, match=name):
        Inspection(None).begin(memoryview(content))
    boots = bytearray(content)
    boots[510:512] = b"\x55\xaa"
    Inspection(None).begin(memoryview(boots))


@pytest.mark.parametrize(
    "content",
    [
        bitmap(41),
        bitmap(40, start=53),
        bitmap(40, reserved=1),
        icon(count=0),
        icon(count=2),
        icon(depth=5),
        sound(b"\xff\xfb\x90\x00", 417, frames=2),
        sound(b"\xff\xfb\x90\x00", 419),
        sound(b"\xff\xfb\xf0\x00", 417),
        sound(b"\xff\xeb\x90\x00", 417),
    ],
)
def test_short_magics_do_not_count_alone(content: bytes) -> None:
    assert told(content.ljust(2 * HEAD, b"\1")).tells_nothing


@pytest.mark.parametrize(
    "text",
    [
        b"All work and no play. " * 9000,
        b"not found\n",
        "\ufeffnicht gefunden: ähnlich\n".encode(),
        "nicht gefunden: ähnlich\n".encode("latin-1"),
        b"not found\r\n\x1a",
        b"\x1b[31mnot found\x1b[0m\n",
        b" <html>not found</html>\r\n\x1a",
        *("nicht gefunden: ähnlich".encode(each) for each in ("utf-16", "utf-32")),
        *("<html>not found</html>".encode(f"utf-{each}") for each in ("16-le", "16-be", "32")),
        ("not found " * 9000).encode("utf-16-le"),
        ("ä" * 9000).encode(),
    ],
)
def test_a_text_is_no_disk(text: bytes) -> None:
    with pytest.raises(NotADisk):
        Inspection(None).begin(memoryview(text))


@pytest.mark.parametrize(
    "content",
    [
        b"\xff" * 2 * HEAD,
        b"text".ljust(2 * HEAD, b"\0"),
        b"text" * 200 + noise(HEAD),
        "label".encode("utf-16-le").ljust(2 * HEAD, b"\0"),
        bytes(511) + b"\1" + noise(HEAD),
        "äöüß".encode("latin-1") * HEAD,
    ],
)
def test_what_is_no_text(content: bytes) -> None:
    assert told(content).tells_nothing


def test_what_only_begins_like_zlib_is_no_compressed_file() -> None:
    content = b"\x78\x9c" + noise(2 * HEAD)
    assert told(content).tells_nothing


@pytest.mark.parametrize(
    ("end", "name"),
    [
        (b"koly\0\0\0\4\0\0\2\0".ljust(512, b"\0"), "dmg"),
        (b"NER5" + bytes(8), "nrg"),
        (b"NERO" + bytes(4), "nrg"),
    ],
)
def test_some_images_are_told_by_their_ends(end: bytes, name: str) -> None:
    inspection = Inspection("raw")
    inspection.begin(memoryview(noise(HEAD)))
    inspection.more(memoryview(noise(4096) + end))
    with pytest.raises(UnsupportedFormat, match=name):
        inspection.finish()
    for behind in (b"\0", end[4:]):
        told(noise(HEAD) + end + behind)
    told(end[:4] + b"\1")


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


@pytest.mark.parametrize("place", sorted(signatures.DISKS))
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
