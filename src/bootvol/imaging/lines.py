"""Reads a program's lines about a hostile image: in a thread, and with a limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bootvol.errors import ImageBomb
from bootvol.threads import Threads

#: The most lines that a program may write about an image.  A disk of 64 GiB has as many clusters of
#: 64 KiB, and hardly any image has a line for each cluster.
MOST: Final = 1024 * 1024
#: The most bytes to keep of an unfinished line.
_LONGEST: Final = 1024 * 1024


class Lines:
    """A splitter of byte blocks into lines.

    :param take: called in a thread with each line, without the line's end.
    :param too_many: error text for more than :data:`MOST` lines.
    """

    def __init__(self, threads: Threads, take: Callable[[bytes], None], too_many: str) -> None:
        self._threads = threads
        self._take = take
        self._too_many = too_many
        self._count = 0
        self._rest = b""

    async def read(self, block: bytes) -> None:
        """Process the next block.  The last line counts only if the line ends.

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
