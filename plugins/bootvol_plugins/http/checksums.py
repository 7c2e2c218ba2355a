"""Lists of digests that lie beside images, in the form of sha256sum and its sisters."""

from __future__ import annotations

import re
from typing import Final

from bootvol.model import Digest

#: Names of lists, and the algorithm that each is of.
LISTS: Final = {"SHA512SUMS": "sha512", "SHA256SUMS": "sha256", "MD5SUMS": "md5"}

#: The longest list that is read, in bytes.
LONGEST: Final = 1024 * 1024

_LINE: Final = re.compile(r"([0-9A-Fa-f]{32,128}) [ *](?:\./)?(.+)")


def find_digest(text: str, algorithm: str, name: str) -> Digest | None:
    """Return the digest that a list states for the file called ``name``, or None."""
    for line in text.splitlines():
        found = _LINE.fullmatch(line.strip())
        if found is not None and found[2] == name:
            return Digest(algorithm, found[1].lower())
    return None
