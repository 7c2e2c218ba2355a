"""The digest of what a source sends, held against what it stated."""

from __future__ import annotations

import hashlib
from typing import Any, Final

import xxhash

from bootvol.errors import DigestMismatch
from bootvol.imaging.blocks import runs
from bootvol.model import Digest

#: Where a source states no digest this one is computed, to know again what was written: after a
#: kill, or when it is read back.  It withstands no forger, and need not: nothing is held against it
#: but what bootvol itself wrote.  It costs a tenth of what sha256 does, which bounds an import.
#: See :class:`_SparseHash`.
OWN: Final = "xxh3_128-sparse"
#: What OWN was before zeros cost nothing; golden volumes of that time are still held against it.
_FORMER: Final = "xxh3_128"

_ZEROS: Final = memoryview(bytes(1024 * 1024))


class _SparseHash:
    """xxh3 of 128 bits that takes no time for zeros.

    Of each run of pieces (:func:`bootvol.imaging.blocks.runs`) that are not all zeros it hashes
    where the run begins (8 bytes, little-endian) and its bytes, and at last the length of all.  So
    zeros that are passed over and zeros that are read give the same.
    """

    def __init__(self) -> None:
        self._hash = xxhash.xxh3_128()
        self._length = 0
        self._within_data = False

    def update(self, chunk: memoryview) -> None:
        """Take in bytes; all that came before must be whole pieces."""
        for run in runs(chunk):
            if not run.zero:
                if not self._within_data:
                    self._hash.update((self._length).to_bytes(8, "little"))
                self._hash.update(chunk[run.start : run.start + run.length])
            self._within_data = not run.zero
            self._length += run.length

    def skip(self, length: int) -> None:
        """Take in so many zeros; all that came before must be whole pieces."""
        self._within_data = False
        self._length += length

    def hexdigest(self) -> str:
        """Return the digest of what has been taken in, in hex."""
        ended = self._hash.copy()
        ended.update(self._length.to_bytes(8, "little"))
        return ended.hexdigest()


class _DenseHash:
    """A digest of :mod:`hashlib`: zeros have to be hashed like all else."""

    def __init__(self, algorithm: str) -> None:
        self._hash: Any = xxhash.xxh3_128() if algorithm == _FORMER else hashlib.new(algorithm)
        self.update = self._hash.update

    def skip(self, length: int) -> None:
        """Take in so many zeros."""
        while length > 0:
            self._hash.update(_ZEROS[:length])
            length -= len(_ZEROS)

    def hexdigest(self) -> str:
        """Return the digest of what has been taken in, in hex."""
        return str(self._hash.copy().hexdigest())


class Digester:
    """Hashes chunks in order; its methods block for as long as hashing takes.

    :ivar stated: what the source promised, if anything; it says the algorithm.
    :ivar idle: nobody will ask: nothing is hashed.
    """

    def __init__(self, stated: Digest | None) -> None:
        self.stated = stated
        self.idle = False
        self._algorithm = stated.algorithm if stated else OWN
        self._hash = _SparseHash() if self._algorithm == OWN else _DenseHash(self._algorithm)

    @property
    def slow_at_zeros(self) -> bool:
        """Whether zeros take the time that their number takes."""
        return not self.idle and self._algorithm != OWN

    def update(self, chunk: memoryview) -> None:
        """Take in the bytes that come next.  Releases the interpreter's lock."""
        if not self.idle:
            self._hash.update(chunk)

    def skip(self, length: int) -> None:
        """Take in so many zeros (bytes) that come next, without anybody reading them."""
        if not self.idle:
            self._hash.skip(length)

    def so_far(self) -> str:
        """Return the digest of what has been taken in, in hex."""
        return self._hash.hexdigest()

    def verify(self) -> Digest | None:
        """Return the digest of all bytes, None if they were not hashed.

        :raises DigestMismatch: it is not what the source stated.
        """
        if self.idle:
            return None
        computed = Digest(self._algorithm, self._hash.hexdigest())
        if self.stated is not None and self.stated.value.lower() != computed.value:
            raise DigestMismatch(
                f"The image's {computed.algorithm} is {computed.value},"
                f" but {self.stated.value} was stated."
            )
        return computed
