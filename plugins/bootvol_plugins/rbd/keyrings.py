"""Reads Ceph's keyrings: files with the keys of users."""

from __future__ import annotations

import configparser
from pathlib import Path

from bootvol import reading


def key_in(path: Path, user: str) -> str | None:
    """Return the key of a user; None if the keyring has none.  Blocks on the disk.

    :param user: the whole name, for example ``client.bootvol``.
    :raises OSError: if the file cannot be read.
    :raises ValueError: if the file is not a keyring.
    """
    parsed = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    try:
        parsed.read_string(reading.content(path).decode())
    except configparser.Error:
        raise ValueError(f"{path} is not a keyring") from None
    return parsed.get(user, "key", fallback=None)
