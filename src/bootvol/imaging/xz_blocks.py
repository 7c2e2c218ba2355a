"""Cuts xz images into their blocks.

If several threads made an image, its blocks begin with their sizes (The .xz File Format, 3.1 "Block
Header").  All blocks of a stream share the stream's header, and the index at its end.  So each
block is passed on as a stream of its own, and this module checks the index.

This module trusts no size: the decoders notice wrong ones.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Generator
from typing import Final

import attrs

from bootvol.errors import ImageCorrupt
from bootvol.imaging.splitting import REST, Content, Do, Mark, Needs, Splitter, Step, Steps

#: The sizes of a first block to cut, in bytes.  Each block is a new start for a decoder.
_LEAST_BLOCK: Final = 256 * 1024
_LARGEST_BLOCK: Final = 64 * 1024 * 1024

_XZ: Final = b"\xfd7zXZ\0"
#: Sizes of the checks in bytes (The .xz File Format, 2.1.1.2 "Stream Flags").
_CHECKS: Final = (0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64)
#: Flags of a block: its sizes are stated (3.1.2 "Block Flags").
_PACKED_STATED, _SIZE_STATED = 0x40, 0x80


@attrs.frozen
class _Block:
    """The statements of a block's header.

    :ivar packed: size of the compressed data in bytes, if stated.
    :ivar size: size of the decompressed data in bytes, if stated.
    :ivar dictionary: size of the dictionary in bytes.
    """

    packed: int | None
    size: int | None
    dictionary: int


class _Records:
    """The sizes of blocks, as an index records them (4.3 "List of Records")."""

    def __init__(self) -> None:
        self.count = 0
        # A list would take much memory for tiny blocks.
        self._digest = hashlib.sha256()

    def add(self, unpadded: int, size: int) -> None:
        """Add a block."""
        self.count += 1
        self._digest.update(_coded(unpadded) + _coded(size))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Records) and self._digest.digest() == other._digest.digest()

    __hash__ = None  # type: ignore[assignment]


def _xz() -> Steps:
    yield Do.PASS, 0
    while True:
        yield Mark.MEMBER
        header = yield Do.SEE, 12
        if not header.startswith(_XZ):
            break
        check = _CHECKS[header[7] & 15]
        records = _Records()
        (first,) = yield Do.SEE, 1
        if not first:
            # A stream without blocks: the index has 8 bytes, and the footer 12.
            yield Do.PASS, 7 + 12
            continue
        while first:
            if records.count:
                yield header + bytes([first])
            length = 4 * (first + 1)
            block = _block((yield Do.SEE, length - 1))
            if block is None:
                # The decoder refuses these bytes.
                yield REST
                return
            yield Needs(block.dictionary)
            packed, size = block.packed, block.size
            if packed is None or size is None:
                packed, size = yield from _lzma2()
            else:
                yield Do.PASS, packed
            unpadded = length + packed + check
            yield Do.PASS, -(length + packed) % 4 + check
            yield _end(header, unpadded, size)
            yield Content(size)
            records.add(unpadded, size)
            yield Mark.WITHIN
            (first,) = yield Do.TAKE, 1
        yield from _check_index(header, records)
    yield REST


def _block(header: bytes) -> _Block | None:
    """Read a block's header (3.1 "Block Header"); None if the header is broken.

    :param header: the header behind its first byte.
    """
    flags, at = header[0], 1
    stated: list[int | None] = [None, None]
    dictionary = 0
    try:
        for number, flag in enumerate((_PACKED_STATED, _SIZE_STATED)):
            if flags & flag:
                stated[number], at = _number(header, at)
        for _ in range((flags & 3) + 1):
            _, at = _number(header, at)
            length, at = _number(header, at)
            # The last filter is LZMA2 (5.3.1 "LZMA2").
            bits = header[at] if length else 0
            dictionary = (2 | bits & 1) << min(bits // 2, 20) + 11
            at += length
    except IndexError:
        return None
    return _Block(stated[0], stated[1], dictionary)


def _number(data: bytes, at: int) -> tuple[int, int]:
    """Return a number at a place, and the next place (1.2 "Multibyte Integers").

    :raises IndexError: if the number is broken.
    """
    value = 0
    for number in range(9):
        value |= (data[at] & 0x7F) << 7 * number
        at += 1
        if data[at - 1] < 0x80:
            return value, at
    raise IndexError


def _coded(number: int) -> bytes:
    """Return a number in the form of :func:`_number`."""
    coded = bytearray()
    while number >= 0x80:
        coded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*coded, number])


def _lzma2() -> Generator[Step, bytes, tuple[int, int]]:
    """Pass on a block's data without stated sizes.  Return its packed and its unpacked size.

    The data are chunks with their sizes.  The first byte tells the kind of a chunk.
    """
    packed = size = 0
    while True:
        (kind,) = yield Do.SEE, 1
        packed += 1
        if not kind:
            return packed, size
        if kind < 0x80:
            # Chunks of uncompressed bytes have the kinds 1 and 2.  The decoder refuses others.
            length = int.from_bytes((yield Do.SEE, 2), "big") + 1
            packed, size = packed + 2, size + length
        else:
            sizes = yield Do.SEE, 4
            size += ((kind & 0x1F) << 16) + int.from_bytes(sizes[:2], "big") + 1
            # A chunk with new properties has one more byte.
            length = int.from_bytes(sizes[2:], "big") + 1 + (kind >= 0xC0)
            packed += 4
        yield Do.PASS, length
        packed += length


def _with_crc(data: bytes) -> bytes:
    return data + zlib.crc32(data).to_bytes(4, "little")


def _end(header: bytes, unpadded: int, size: int) -> bytes:
    """Return the index and the footer of a stream of one block (4 "Index", 2.1.2)."""
    index = b"\0\1" + _coded(unpadded) + _coded(size)
    index = _with_crc(index + bytes(-len(index) % 4))
    footer = (len(index) // 4 - 1).to_bytes(4, "little") + header[6:8]
    return index + zlib.crc32(footer).to_bytes(4, "little") + footer + b"YZ"


def _check_index(header: bytes, records: _Records) -> Steps:
    """Take the index behind its first byte, and the footer.

    :raises ImageCorrupt: if the index does not fit the blocks, or is broken.
    """
    read = _Records()
    crc, length = zlib.crc32(b"\0"), 1
    left = 1
    numbers: list[int] = []
    while left:
        coded = b""
        while not coded or coded[-1] >= 0x80:
            coded += yield Do.TAKE, 1
            if len(coded) > 9:
                raise _corrupt()
        crc, length = zlib.crc32(coded, crc), length + len(coded)
        numbers.append(_number(coded, 0)[0])
        if _coded(numbers[-1]) != coded:
            raise _corrupt()
        if length == 1 + len(coded):
            if numbers.pop() != records.count:
                raise _corrupt()
            left += 2 * records.count
        elif len(numbers) == 2:
            read.add(*numbers)
            numbers.clear()
        left -= 1
    padding = yield Do.TAKE, -length % 4
    crc, length = zlib.crc32(padding, crc), length + len(padding) + 4
    stated = yield Do.TAKE, 4
    footer = yield Do.TAKE, 12
    fields = (length // 4 - 1).to_bytes(4, "little") + header[6:8]
    right = stated == crc.to_bytes(4, "little") and footer[4:] == fields + b"YZ"
    if any(padding) or read != records or not right or _with_crc(fields)[6:] != footer[:4]:
        raise _corrupt()


def _corrupt() -> ImageCorrupt:
    return ImageCorrupt("The compressed image cannot be unpacked: Corrupt input data.")


def blocks_of(head: bytes) -> Splitter | None:
    """Return a splitter for an image; None if its first block states no sizes.

    :param head: the first bytes of the image.
    """
    if len(head) < 14:
        return None
    block = _block(head[13 : 12 + 4 * (head[12] + 1)])
    if block is None or block.packed is None or block.size is None:
        return None
    return Splitter(_xz()) if _LEAST_BLOCK <= block.size <= _LARGEST_BLOCK else None
