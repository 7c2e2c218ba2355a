"""Streams that wrap others: what they pass on, and what they say where a read fails half way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bootvol.errors import ImportFailed
from bootvol.imaging.extents import tell_of
from bootvol.interfaces import IImageStream


class Wrapping:
    """What a stream that wraps another one has of that one; a subclass reads.

    :ivar stream: the other one; closed with this.
    """

    def __init__(self, stream: IImageStream) -> None:
        self.size = stream.size
        self.offset = stream.offset
        self.validator = stream.validator
        self.stream = stream
        # Zeros that are passed over are read by nobody.
        tell_of(stream, self)

    async def close(self) -> None:
        """See :meth:`bootvol.interfaces.IImageStream.close`."""
        await self.stream.close()


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
