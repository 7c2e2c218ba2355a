"""The least size of a disk, by its partition table or file system."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootvol.imaging.stated_sizes import needed
from bootvol.testing.backends import noise
from tests.fuzzing import fuzz
from tests.images import MIB, gpt, mbr

#: A table with one partition, in the last sector of a disk of 8 MiB.
LAST = mbr(8 * MIB, begin=8 * MIB // 512 - 1)
#: A descriptor of 1000 blocks of 2048 bytes.
ISO = b"\1CD001".ljust(80, b"\0") + struct.pack("<I44xH", 1000, 2048)


@pytest.mark.parametrize(
    ("head", "size"),
    [
        (LAST, 8 * MIB),
        (LAST + noise(70_000), 8 * MIB),
        # The image may end within the last partition.
        (mbr(8 * MIB, begin=2048), MIB + 512),
        # The second partition begins at the sixth MiB.
        (mbr(6 * MIB)[:462] + mbr(8 * MIB, begin=12288)[446:462] + LAST[478:], 6 * MIB + 512),
        (mbr(2**32 * 512, begin=2**32 - 1), 2**32 * 512),
        (mbr(8 * MIB, begin=8 * MIB // 512), 0),
        (mbr(8 * MIB, kind=0), 0),
        (mbr(8 * MIB, kind=0xEE), 0),
        (b"\xeb\x3c\x90NTFS    ".ljust(446, b"\0") + mbr(8 * MIB)[446:], 0),
        (bytes(54) + b"FAT16".ljust(392, b"\0") + mbr(8 * MIB)[446:], 0),
        (b"\xeb\x63\x90".ljust(446, b"\0") + LAST[446:], 8 * MIB),
        (mbr(8 * MIB)[:511], 0),
        (gpt(8 * MIB), 8 * MIB),
        (gpt(8 * MIB, sector=4096), 8 * MIB),
        (gpt(8 * MIB).ljust(32768, b"\0") + ISO, 1000 * 2048),
        (mbr(8 * MIB).ljust(32768, b"\0") + ISO, 1000 * 2048),
        (bytes(32768) + ISO, 1000 * 2048),
        (bytes(32768) + ISO[:129], 0),
        (bytes(1024) + b"\xff" * 56 + b"\x53\xef" + b"\xff" * 999, 0),
        (b"", 0),
        (noise(510) + b"\x55\xaa" + noise(70_000), 0),
        (bytes(70_000), 0),
    ],
)
def test_what_a_table_needs(head: bytes, size: int) -> None:
    assert needed(head) == size


@pytest.mark.parametrize(
    "command", ["mkfs.ext2 -q", "mkfs.ext4 -q -b 1024", "mkfs.ext4 -q -O 64bit", "mkfs.xfs -q"]
)
def test_what_a_file_system_needs(tmp_path: Path, command: str) -> None:
    image, size = tmp_path / "image", 320 * MIB
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run([*command.split(), image], check=True, capture_output=True)
    with image.open("rb") as file:
        assert needed(file.read(MIB)) == size


@fuzz(100)
@given(st.binary(max_size=99), st.binary(max_size=66), st.binary(max_size=99))
def test_any_table_is_read(code: bytes, records: bytes, behind: bytes) -> None:
    assert needed(code.ljust(446, b"\0") + records.ljust(64, b"\0") + b"\x55\xaa" + behind) >= 0
