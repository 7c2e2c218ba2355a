"""Sections of compressed images: all bytes in their order, and few objects."""

from __future__ import annotations

import lzma

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from bootvol.imaging import xz_blocks
from bootvol.imaging.compression import FORMATS
from bootvol.imaging.sections import Section, Sections
from bootvol.testing.backends import noise
from tests.fuzzing import fuzz
from tests.unit.test_parts import bgzf, blocks, frames, xz_stream

MIB = 1024 * 1024


def sections(name: str, packed: bytes, step: int = MIB) -> list[list[Section]]:
    """Return the sections of each input of an image."""
    kind = next(each for each in FORMATS if each.name == name)
    splitter = kind.splitter(packed[:512])
    assert splitter is not None
    gathered = Sections(splitter)
    views = [memoryview(packed)[at : at + step] for at in range(0, len(packed), step)]
    return [gathered.split(each) for each in views]


def joined(found: list[list[Section]]) -> bytes:
    return b"".join(piece for each in found for section in each for piece in section.pieces)


TINY = {
    "gzip": bgzf(bytes(20_000), 1),
    "xz": xz_stream([b"a"] * 20_000, sized=[True] * 20_000, check=0),
    "zstd": (b"\x50\x2a\x4d\x18\0\0\0\0" + zstd.compress(b"a")) * 30_000,
}


@pytest.mark.parametrize("name", TINY)
def test_tiny_members_make_few_objects(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Break: `src/bootvol/imaging/sections.py`: `if len(piece) >= _SMALL:` -> `if True:`

    Break: `src/bootvol/imaging/sections.py`: `isinstance(piece, Mark) and self._is_large` ->
    `isinstance(piece, Mark)`.
    """
    monkeypatch.setattr(xz_blocks, "_LEAST_BLOCK", 0)
    for found in sections(name, TINY[name]):
        assert len(found) <= 2
        assert sum(len(section.pieces) for section in found) <= 20


@fuzz(30)
@given(content=st.binary(min_size=1, max_size=3000), step=st.integers(1, 2000))
def test_all_bytes_in_their_order(content: bytes, step: int) -> None:
    for name, packed in {"gzip": bgzf(content, 70), "zstd": frames(content, 70)}.items():
        assert joined(sections(name, packed, step)) == packed


def test_large_members_are_parts_of_their_own() -> None:
    content = noise(4 * MIB)
    packed = {"xz": blocks(content, MIB), "zstd": frames(content, 2 * MIB)}
    for name, count in {"xz": 4, "zstd": 2}.items():
        found = sections(name, packed[name])
        assert sum(section.ends for each in found for section in each) == count
    assert lzma.decompress(joined(sections("xz", packed["xz"]))) == content
    # The bytes of large members are not copied.
    copied = [piece for each in found for section in each for piece in section.pieces]
    assert sum(len(each) for each in copied if isinstance(each, bytearray)) < 10_000
