"""The index of a disk: a strong hash of each chunk that does not read as zeros."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Final

from bootvol.imaging.blocks import PIECE

#: Size of a chunk in bytes: the unit of the search for zeros, and the usual cluster of a qcow2
#: image.  Larger chunks find less that two disks have in common: see
#: docs/decisions/0011-deltas.md.
CHUNK: Final = PIECE
#: Entry of a chunk that reads as zeros.
HOLE: Final = bytes(32)
#: Entry of a chunk that may have any content.  No chunk has this hash.
UNKNOWN: Final = b"\xff" * 32

_ENTRY: Final = len(HOLE)
#: Chunks of a page: 64 MiB of the disk.
PAGE: Final = 1024
#: The most pages: 8 MiB in memory and in the database, for 16 GiB of used parts of the disk.
_MOST: Final = 256
#: The first bytes of an index outside of memory: its hash, its chunk and its version.
_MAGIC: Final = b"sha256/64KiB/1\n"
_NUMBER: Final = 4


class IndexFull(Exception):
    """The disk has data in too many places."""


class ChunkIndex:
    """The entries of a disk's chunks, by the number of the chunk.

    An entry is a SHA-256, :data:`HOLE` or :data:`UNKNOWN`.  Entries begin as holes, and parts of
    the disk without any other entry take no memory.
    """

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}

    def __getitem__(self, number: int) -> bytes:
        """Return the entry of a chunk."""
        page, place = divmod(number, PAGE)
        entries = self._pages.get(page)
        return HOLE if entries is None else bytes(entries[place * _ENTRY : (place + 1) * _ENTRY])

    def __setitem__(self, number: int, entry: bytes) -> None:
        """Set the entry of a chunk.

        :raises IndexFull: if the index has no room for one more page.
        """
        page, place = divmod(number, PAGE)
        entries = self._pages.get(page)
        if entries is None:
            if len(self._pages) >= _MOST:
                raise IndexFull
            entries = self._pages[page] = bytearray(PAGE * _ENTRY)
        entries[place * _ENTRY : (place + 1) * _ENTRY] = entry

    def has_page(self, page: int) -> bool:
        """Return whether a page may have other entries than holes."""
        return page in self._pages

    def entries(self) -> Iterator[tuple[int, bytes]]:
        """Yield the number and the entry of each chunk that is no hole."""
        for page in list(self._pages):
            for number in range(page * PAGE, (page + 1) * PAGE):
                if (entry := self[number]) != HOLE:
                    yield number, entry

    def cut(self, end: int) -> None:
        """Turn all chunks from number ``end`` on into holes."""
        for page in [page for page in self._pages if page * PAGE >= end]:
            del self._pages[page]
        last, place = divmod(end, PAGE)
        if last in self._pages:
            self._pages[last][place * _ENTRY :] = bytes((PAGE - place) * _ENTRY)

    def copy(self) -> ChunkIndex:
        """Return an index with the same entries."""
        copied = ChunkIndex()
        copied._pages = {page: bytearray(entries) for page, entries in self._pages.items()}
        return copied

    def to_bytes(self) -> bytes:
        """Return the index in its form for the database."""
        body = b"".join(
            page.to_bytes(_NUMBER, "big") + entries for page, entries in self._pages.items()
        )
        return _MAGIC + hashlib.sha256(body).digest() + body

    @classmethod
    def of_bytes(cls, stored: bytes) -> ChunkIndex:
        """Return the index that :meth:`to_bytes` stored.

        :raises ValueError: if the bytes are no index, an index of another version, or damaged.
        """
        begin, step = len(_MAGIC) + _ENTRY, _NUMBER + PAGE * _ENTRY
        body = memoryview(stored)[begin:]
        if stored[:begin] != _MAGIC + hashlib.sha256(body).digest() or len(body) % step:
            raise ValueError("these bytes are no index of chunks")
        index = cls()
        for start in range(0, len(body), step):
            page = int.from_bytes(body[start : start + _NUMBER], "big")
            index._pages[page] = bytearray(body[start + _NUMBER : start + step])
        return index


def entries_of(offset: int, data: memoryview) -> Sequence[bytes]:
    """Return the entries of all chunks that some bytes lie in.  Blocks while hashing.

    A chunk that is not whole is unknown.

    :param offset: place of the bytes on the disk.
    """
    end = offset + len(data)
    return [
        hashlib.sha256(data[at - offset : at - offset + CHUNK]).digest()
        if offset <= at and at + CHUNK <= end
        else UNKNOWN
        for at in range(offset // CHUNK * CHUNK, end, CHUNK)
    ]
