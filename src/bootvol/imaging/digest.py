"""The digest of the bytes of a source, and the check against the stated digest."""

from __future__ import annotations

import hashlib
from typing import Final, Protocol, Self

import xxhash

from bootvol.errors import DigestMismatch
from bootvol.imaging.blocks import runs
from bootvol.model import Digest

#: The digest for images whose source states no digest.  With this digest bootvol recognizes its
#: written data: after a kill, or when the volume is read back.  A forger can defeat the digest, but
#: bootvol checks only its own writes with this algorithm.  The cost is a tenth of sha256's, and
#: sha256 would limit the speed of an import.  See :class:`_SparseHash`.
OWN: Final = "xxh3_128-sparse"
#: The former OWN, before zeros cost nothing.  Cached images of that time are still checked
#: with this algorithm.
_FORMER: Final = "xxh3_128"

_ZEROS: Final = memoryview(bytes(1024 * 1024))


class _Hash(Protocol):
    """The common interface of :mod:`hashlib` and of xxhash."""

    def update(self, chunk: memoryview, /) -> None: ...

    def copy(self) -> Self: ...

    def hexdigest(self) -> str: ...


class _SparseHash:
    """A 128-bit xxh3 digest that takes no time for zeros.

    For each run of data (:func:`bootvol.imaging.blocks.runs`), the digest covers the offset of the
    run (8 bytes, little-endian) and its bytes.  The total length comes last.  So skipped zeros and
    read zeros give the same digest.
    """

    def __init__(self) -> None:
        self._hash = xxhash.xxh3_128()
        self._length = 0
        self._within_data = False

    def update(self, chunk: memoryview) -> None:
        """Hash the next bytes.  All bytes before must be whole pieces."""
        for run in runs(chunk):
            if not run.zero:
                if not self._within_data:
                    self._hash.update((self._length).to_bytes(8, "little"))
                self._hash.update(chunk[run.start : run.start + run.length])
            self._within_data = not run.zero
            self._length += run.length

    def skip(self, length: int) -> None:
        """Hash ``length`` zeros.  All bytes before must be whole pieces."""
        self._within_data = False
        self._length += length

    def hexdigest(self) -> str:
        """Return the digest of all bytes so far, in hex."""
        ended = self._hash.copy()
        ended.update(self._length.to_bytes(8, "little"))
        return ended.hexdigest()


class _DenseHash:
    """A digest of :mod:`hashlib`: zeros are hashed like other bytes."""

    def __init__(self, algorithm: str) -> None:
        self._hash: _Hash = xxhash.xxh3_128() if algorithm == _FORMER else hashlib.new(algorithm)
        self.update = self._hash.update

    def skip(self, length: int) -> None:
        """Hash ``length`` zeros."""
        while length > 0:
            self._hash.update(_ZEROS[:length])
            length -= len(_ZEROS)

    def hexdigest(self) -> str:
        """Return the digest of all bytes so far, in hex."""
        return self._hash.copy().hexdigest()


class Digester:
    """The digest of chunks, taken in order.  The methods block for as long as hashing takes.

    :ivar stated: the digest that the source stated, if any, which also sets the algorithm.
    :ivar idle: whether hashing is off, because the digest will not be used.
    """

    def __init__(self, stated: Digest | None) -> None:
        self.stated = stated
        self.idle = False
        self._algorithm = stated.algorithm if stated else OWN
        self._hash = _SparseHash() if self._algorithm == OWN else _DenseHash(self._algorithm)

    @property
    def slow_at_zeros(self) -> bool:
        """True if the time for zeros grows with their number."""
        return not self.idle and self._algorithm != OWN

    def update(self, chunk: memoryview) -> None:
        """Hash the next bytes.  Releases the interpreter's lock."""
        if not self.idle:
            self._hash.update(chunk)

    def skip(self, length: int) -> None:
        """Hash the next ``length`` bytes, which are zeros that are not read."""
        if not self.idle:
            self._hash.skip(length)

    def so_far(self) -> str:
        """Return the digest of all bytes so far, in hex."""
        return self._hash.hexdigest()

    def verify(self) -> Digest | None:
        """Return the digest of all bytes; None if they were not hashed.

        :raises DigestMismatch: if the digest differs from the stated one.
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
