"""The digest of what a source sends, held against what it stated."""

from __future__ import annotations

import hashlib
from typing import Any, Final

import xxhash

from bootvol.errors import DigestMismatch
from bootvol.model import Digest

#: Where a source states no digest this one is computed, to know again what was written: after a
#: kill, or when it is read back.  It withstands no forger, and need not: nothing is held against it
#: but what bootvol itself wrote.  It costs a tenth of what sha256 does, which bounds an import.
OWN: Final = "xxh3_128"


class Digester:
    """Hashes chunks in order; its methods block for as long as hashing takes.

    :ivar stated: what the source promised, if anything; it says the algorithm.
    :ivar idle: nobody will ask: nothing is hashed.
    """

    def __init__(self, stated: Digest | None) -> None:
        self.stated = stated
        self.idle = False
        self._algorithm = stated.algorithm if stated else OWN
        self._hash: Any = (
            xxhash.xxh3_128() if self._algorithm == OWN else hashlib.new(self._algorithm)
        )

    def update(self, chunk: memoryview) -> None:
        """Take in the bytes that come next.  Releases the interpreter's lock."""
        if not self.idle:
            self._hash.update(chunk)

    def so_far(self) -> str:
        """Return the digest of what has been taken in, in hex."""
        return str(self._hash.copy().hexdigest())

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
