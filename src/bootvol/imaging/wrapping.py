"""Streams that wrap other streams: shared attributes, and errors of a read that fails half way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bootvol.errors import ImportFailed
from bootvol.imaging.extents import tell_of
from bootvol.interfaces import IImageStream


class Wrapping:
    """A base class for streams that wrap another stream.  The subclass defines the reads.

    :ivar stream: the wrapped stream, closed together with the wrapper.
    """

    def __init__(self, stream: IImageStream) -> None:
        self.size = stream.size
        self.offset = stream.offset
        self.validator = stream.validator
        self.stream = stream
        # The wrapper need not see skipped zeros.
        tell_of(stream, self)

    async def close(self) -> None:
        """See :meth:`bootvol.interfaces.IImageStream.close`."""
        await self.stream.close()


@contextmanager
def after(filled: int) -> Iterator[None]:
    """Add earlier bytes to the count of received bytes in an error of the block.

    :param filled: number of bytes in the target before the block's own bytes.
    """
    try:
        yield
    except ImportFailed as error:
        error.came += filled
        raise
