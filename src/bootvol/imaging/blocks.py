"""Chunks of an image, their runs of data and of zeros, and the ends of whole blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import attrs

from bootvol.interfaces import IVolumeWriter

#: Unit of the search for zeros, in bytes.  Small enough to find nearly all zeros (64 KiB runs skip
#: 99.9 % of the zeros that 4 KiB runs skip), and large enough to cost next to nothing.
PIECE: Final = 64 * 1024

_ZEROS: Final = bytes(PIECE)


def up_to_block(length: int, block: int) -> int:
    """Round ``length`` up to a whole number of blocks, all in bytes."""
    return -(-length // block) * block


@attrs.frozen
class Run:
    """Consecutive bytes of a chunk, either all zeros or data; in bytes from the chunk's start."""

    start: int
    length: int
    zero: bool


@attrs.frozen
class Chunk:
    """Consecutive bytes of the image, in a buffer of the pool.

    :ivar hole: whether the chunk stands for zeros, with no bytes in the buffer.
    :ivar digest: digest of the image from its start to this chunk's end, once known.
    """

    buffer: memoryview
    offset: int
    length: int
    hole: bool = False
    runs: tuple[Run, ...] = ()
    digest: str = ""


#: The marker behind the last chunk in the queues.
END: Final = Chunk(memoryview(b""), 0, 0)


def runs(chunk: memoryview) -> Iterator[Run]:
    """Yield the longest runs that cover ``chunk``, in order.  Borders fall on whole pieces."""
    begin, zero = 0, False
    for start in range(0, len(chunk), PIECE):
        is_zero = _ZEROS.startswith(chunk[start : start + PIECE])
        if is_zero is not zero:
            if start > begin:
                yield Run(begin, start - begin, zero)
            begin, zero = start, is_zero
    if len(chunk) > begin:
        yield Run(begin, len(chunk) - begin, zero)


async def write_runs(
    writer: IVolumeWriter, offset: int, data: memoryview, found: Iterable[Run], *, zeros: bool
) -> None:
    """Write the runs of a chunk to a volume.

    :param offset: offset of ``data`` on the volume, in bytes.
    :param found: the runs in ``data``.
    :param zeros: whether zeros have to be written, too.
    :raises bootvol.errors.BackendFailed: if the volume cannot be written.
    """
    for run in found:
        if not run.zero:
            await writer.write(offset + run.start, data[run.start : run.start + run.length])
        elif zeros:
            await writer.zero(offset + run.start, run.length)
