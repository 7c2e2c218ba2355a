"""Decodes a stream in a thread, as far as its reader asks.

Three things happen at once: the next input is received, the former one is hashed and decoded.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from twisted.internet.defer import CancelledError, Deferred
from zope.interface import implementer

from bootvol.errors import ImageTooLarge, ImportFailed
from bootvol.imaging.compression import HEAD, TAR, Compression
from bootvol.imaging.digest import Digester
from bootvol.imaging.magics import is_tar
from bootvol.imaging.members import Members
from bootvol.interfaces import IImageStream
from bootvol.threads import Shared, Threads, outlast

#: Bytes to read from the source at a time.
INPUT: Final = 1024 * 1024
#: Bytes before the input, with room for the last bytes of the previous input.
ROOM: Final = HEAD


@implementer(IImageStream)
class Decoded:
    """The decoded stream of one decoder.

    :param packed: the encoded stream.  This object reads ahead until :meth:`close`, and does not
        close ``packed``.
    :param compression: format of ``packed``.
    :param digester: digest of the bytes of ``packed``.
    :param most: the most bytes to take from ``packed``.
    """

    def __init__(
        self,
        packed: IImageStream,
        compression: Compression,
        digester: Digester,
        most: int,
        threads: Threads,
    ) -> None:
        self.size: int | None = None
        self.offset = 0
        self.validator: str | None = None
        self.taken = 0
        self.compression = compression
        self._members = Members(compression)
        self._digester = digester
        self._most = most
        self._threads = threads
        # The digest of the input is computed beside its decoding, in another thread.
        self._hashing: Shared[None] | None = None
        self._ended = False
        # Decoded bytes of a read that then broke off.
        self._kept = b""
        self.packed = packed
        # One buffer is filled while the other is decoded; both are made when needed.
        self._filling = self._spare = memoryview(b"")
        self._coming: Shared[int] | None = None

    @property
    def foreign(self) -> bool:
        """True if foreign bytes follow the last member."""
        return self._members.foreign

    @property
    def ended_by_itself(self) -> bool:
        """True once the decoder has found the end."""
        return self._members.ended

    async def archived(self) -> Decoded | None:
        """Return a reader of the disk in an archive; None if the decoded stream is no archive.

        Call this method at the start of the stream.  After a failure, call again: no received bytes
        are lost.
        """
        head = memoryview(bytearray(HEAD))
        first = bytes(head[: await self.read_into(head)])
        self._kept = first + self._kept
        if not is_tar(first):
            return None
        digester = Digester(None)
        digester.idle = True
        return Decoded(self, TAR, digester, self._most, self._threads)

    def go_on(self, packed: IImageStream) -> None:
        """Read on from another stream, which begins after the received bytes."""
        self.packed = packed

    async def read_into(self, target: memoryview) -> int:
        """See :meth:`bootvol.interfaces.IImageStream.read_into`."""
        filled = min(len(self._kept), len(target))
        target[:filled], self._kept = self._kept[:filled], self._kept[filled:]
        try:
            while True:
                filled += await self._decode(target[filled:])
                if filled == len(target):
                    return filled
                if self._ended:
                    break
                await self._fetch()
        except ImportFailed:
            self._kept = bytes(target[:filled])
            raise
        # The source has sent all its bytes: a retry would not help.
        self._check_whole()
        await self._hashed()
        self._digester.verify()
        return filled

    async def close(self) -> None:
        """See :meth:`bootvol.interfaces.IImageStream.close`."""
        if self._coming is not None:
            self._coming.cancel()
            with suppress(CancelledError, ImportFailed):
                await outlast(self._coming.wait())
            self._coming = None
        await outlast(Deferred.fromCoroutine(self._hashed()))
        # Release the memory for others while nothing comes.
        self._members.give(memoryview(bytes(self._members.rest)), last=self._ended)
        self._filling = self._spare = memoryview(b"")

    async def _fetch(self) -> None:
        """Take the received bytes, and begin to receive more during the decoding."""
        # The next read will fill the memory of the previous input.
        await self._hashed()
        if self._coming is None:
            self._coming = self._ask()
        broken: ImportFailed | None = None
        try:
            length = await self._coming.wait()
        except ImportFailed as error:
            # Bytes before the failure are decoded later.  The reader of this stream gets none of
            # them now, so the error must not count them.
            broken, length, error.came = error, error.came, 0
        self.taken += length
        if self.taken > self._most:
            raise ImageTooLarge(
                f"The {self.compression.called} has more than {self._most} bytes;"
                " the volume has no room for them."
            )
        self._ended = broken is None and length < len(self._filling) - ROOM
        fresh = self._filling[ROOM : ROOM + length]
        if not self._digester.idle:
            hashing = self._threads.run(self._digester.update, fresh)
            self._hashing = Shared(Deferred.fromCoroutine(hashing))
        await self._take(length)
        if broken is not None:
            self._coming = None
            raise broken
        self._coming = None if self._ended else self._ask()

    async def _hashed(self) -> None:
        """Wait until all received bytes are in the digest."""
        if self._hashing is not None:
            await self._hashing.wait()
            self._hashing = None

    async def _decode(self, target: memoryview) -> int:
        """Fill ``target`` as far as the input goes, and return the number of bytes."""
        return await self._threads.run(self._members.unpack, target)

    def _check_whole(self) -> None:
        """Check the end of the image.

        :raises bootvol.errors.ImportFailed: if the image is incomplete.
        """
        self._members.check_whole()

    async def _take(self, length: int) -> None:
        """Take received bytes from the filled buffer."""
        # The rest may be the beginning of a member, so put the rest before the new bytes.
        rest = self._members.rest
        start = ROOM - len(rest)
        self._filling[start:ROOM] = rest
        self._members.give(self._filling[start : ROOM + length], last=self._ended)
        self._filling, self._spare = self._spare, self._filling

    def _ask(self) -> Shared[int]:
        if not self._filling:
            self._filling, self._spare = (memoryview(bytearray(ROOM + INPUT)) for _ in range(2))
        return Shared(Deferred.fromCoroutine(self.packed.read_into(self._filling[ROOM:])))
