"""Reads that fail half way, in streams that wrap others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bootvol.errors import ImportFailed


@contextmanager
def after(filled: int) -> Iterator[None]:
    """Let a failure of the block say that so many bytes had come before.

    :param filled: bytes in the target, in front of those that the block reads.
    """
    try:
        yield
    except ImportFailed as error:
        error.came += filled
        raise
