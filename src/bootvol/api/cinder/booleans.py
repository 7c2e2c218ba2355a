"""The words for true and false in bodies and in queries."""

from __future__ import annotations

from typing import Final

_TRUE: Final = frozenset({"1", "t", "true", "on", "y", "yes"})
_FALSE: Final = frozenset({"0", "f", "false", "off", "n", "no"})


def truth(text: str) -> bool | None:
    """Return the meaning of a word, in any case; None for another text."""
    word = text.strip().lower()
    return word in _TRUE if word in _TRUE | _FALSE else None
