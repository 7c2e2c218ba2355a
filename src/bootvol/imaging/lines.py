"""Reads the lines that a program writes about a hostile image: in a thread, and not without end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bootvol.errors import ImageBomb
from bootvol.threads import Threads

#: The most lines that a program may write about an image.  A disk of 64 GiB in clusters of 64 KiB
#: has so many, and hardly an image has a line for each of its clusters.
MOST: Final = 1024 * 1024
#: The most bytes of a line that has not come to its end.
_LONGEST: Final = 1024 * 1024


class Lines:
    """Splits blocks of bytes into lines.

    :param take: is given each line without its end, in a thread.
    :param too_many: says what of the image is too much where more than :data:`MOST` lines come.
    """

    def __init__(self, threads: Threads, take: Callable[[bytes], None], too_many: str) -> None:
        self._threads = threads
        self._take = take
        self._too_many = too_many
        self._count = 0
        self._rest = b""

    async def read(self, block: bytes) -> None:
        """Take in the next block.  The last line counts only if the line ends.

        :raises ImageBomb: if more lines come than any image should need.
        """
        await self._threads.run(self._read, block)

    def _read(self, block: bytes) -> None:
        *lines, rest = (self._rest + block).split(b"\n")
        self._rest = rest[-_LONGEST:]
        self._count += len(lines)
        if self._count > MOST:
            raise ImageBomb(self._too_many)
        for line in lines:
            self._take(line)
