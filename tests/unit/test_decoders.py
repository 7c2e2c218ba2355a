"""The decompressor of gzip members, beside zlib's own."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bootvol.decoders import Gzip
from bootvol.testing.backends import noise
from tests.fuzzing import fuzz
from tests.unit.test_members import gzip_header

CONTENT = b"bytes of a disk; " * 500 + noise(3000) + bytes(3000)
MEMBER = gzip.compress(CONTENT)
CHECKED = b"\x1f\x8b\x08\x02\0\0\0\0\0\3"
CHECKED += (zlib.crc32(CHECKED) & 0xFFFF).to_bytes(2, "little") + MEMBER[10:]


def by_zlib(packed: bytes) -> tuple[bytes, bytes] | None:
    """Return the content of a member, and the bytes behind; None if the member is incomplete."""
    decoder = zlib.decompressobj(wbits=31)
    content = decoder.decompress(packed)
    return (content, decoder.unused_data) if decoder.eof else None


def by_gzip(packed: bytes, step: int, most: int) -> tuple[bytes, bytes] | None:
    """Return the same by :class:`Gzip`, from pieces of ``step`` bytes to pieces of ``most``."""
    decoder, content, at, hungry = Gzip(), b"", 0, True
    while not decoder.eof:
        piece = memoryview(packed)[at : at + step] if hungry else memoryview(b"")
        at += len(piece)
        if hungry and not piece:
            return None
        out = decoder.decompress(piece, most)
        assert len(out) <= most
        content += out
        hungry = len(out) < most
    return content, decoder.unused_data + packed[at:]


steps = st.sampled_from([1, 2, 7, 100, 5000, 100_000])


@fuzz(60)
@given(
    header=gzip_header(),
    content=st.sampled_from([b"", b"x", noise(300), CONTENT]),
    level=st.integers(0, 9),
    behind=st.sampled_from([b"", bytes(9), noise(30), MEMBER]),
    step=steps,
    most=steps,
)
@example(header=CHECKED[:12], content=b"", level=1, behind=b"", step=7, most=1)
def test_every_member_is_read_as_by_zlib(
    header: bytes, content: bytes, level: int, behind: bytes, step: int, most: int
) -> None:
    packed = header + gzip.compress(content, level)[10:] + behind
    assert by_zlib(packed) == (content, behind)
    assert by_gzip(packed, step, most) == (content, behind)


@fuzz(150)
@given(
    member=st.sampled_from([MEMBER, CHECKED]),
    changes=st.lists(
        st.tuples(st.integers(0, 40) | st.integers(-12, -1), st.integers(0, 7)), max_size=2
    ),
    end=st.integers(0, len(MEMBER)) | st.none(),
    step=steps,
    most=steps,
)
def test_broken_members_give_no_other_bytes_than_by_zlib(
    member: bytes, changes: list[tuple[int, int]], end: int | None, step: int, most: int
) -> None:
    """A changed or cut member is read as by zlib, or refused, or incomplete."""
    packed = bytearray(member)
    for place, bit in changes:
        packed[place] ^= 1 << bit
    packed = packed[:end]
    try:
        found = by_gzip(bytes(packed), step, most)
    except zlib.error:
        with pytest.raises(zlib.error):
            by_zlib(bytes(packed))
        return
    try:
        expected = by_zlib(bytes(packed))
    except zlib.error:
        # isal needs more bytes to notice some errors, and reads a few codes that zlib refuses.
        assert found is None or found[0] == CONTENT
    else:
        assert found == expected


def changed(member: bytes, place: int) -> bytes:
    """Return a member with a changed byte."""
    made = bytearray(member)
    made[place] ^= 0x80
    return bytes(made)


@pytest.mark.parametrize("step", [1, 3, 100_000])
@pytest.mark.parametrize(
    "packed",
    [
        changed(MEMBER, 1),
        changed(MEMBER, 2),
        changed(MEMBER, 3),
        changed(CHECKED, 4),
        changed(CHECKED, 11),
        changed(MEMBER, -1),
        changed(MEMBER, -5),
    ],
    ids=["magic", "method", "flags", "checked", "check", "size", "crc"],
)
def test_broken_headers_and_trailers_have_the_messages_of_zlib(packed: bytes, step: int) -> None:
    with pytest.raises(zlib.error) as of_zlib:
        by_zlib(packed)
    with pytest.raises(zlib.error) as found:
        by_gzip(packed, step, 5000)
    assert str(found.value) == str(of_zlib.value)


def test_broken_content_has_a_message() -> None:
    with pytest.raises(zlib.error, match="Invalid deflate block"):
        by_gzip(MEMBER[:10] + b"\xff" * 100, 100, 100)


def test_texts_of_any_length_take_no_memory() -> None:
    """A header may have a name of gigabytes."""
    decoder = Gzip()
    decoder.decompress(b"\x1f\x8b\x08\x08\0\0\0\0\0\3", 1)
    piece = b"name" * 25_000
    tracemalloc.start()
    try:
        for _ in range(50):
            assert decoder.decompress(piece, 1) == b""
        assert tracemalloc.get_traced_memory()[1] < 10 * len(piece)
    finally:
        tracemalloc.stop()
    assert decoder.decompress(b"\0" + MEMBER[10:], 2 * len(CONTENT)) == CONTENT
    assert decoder.eof
