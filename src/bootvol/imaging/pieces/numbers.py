"""Tables of numbers."""

from __future__ import annotations

import sys
from array import array
from typing import Literal


def numbers(
    data: bytes | memoryview, kind: Literal["I", "Q"], order: Literal["little", "big"]
) -> array[int]:
    """Return the unsigned numbers in a table.

    :param data: a whole number of entries.
    :param kind: entries of four bytes ("I"), or of eight ("Q").
    :param order: the order of the bytes in an entry.
    """
    found = array(kind, bytes(data))
    if sys.byteorder != order:
        found.byteswap()
    return found
