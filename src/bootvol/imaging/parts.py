"""One part of a compressed image, decoded by whichever thread comes first."""

from __future__ import annotations

from collections import deque
from typing import Final

from twisted.internet.defer import Deferred

from bootvol.imaging.compression import Compression
from bootvol.imaging.members import Members
from bootvol.threads import Shared, Threads, outlast

#: Bytes of one piece decoded ahead.
_PIECE: Final = 256 * 1024
#: The users of an input that still read it.  The first item is the input's memory.
Lease = list[memoryview | None]


class Spare:
    """Memory for inputs and for pieces decoded ahead.

    The memory is used again: new memory costs half of the time of zstd.  Call the methods from any
    thread.
    """

    def __init__(self) -> None:
        self.inputs: deque[memoryview] = deque()
        self.pieces: deque[memoryview] = deque()

    def input(self, size: int) -> memoryview:
        """Return memory for an input."""
        return self.inputs.pop() if self.inputs else memoryview(bytearray(size))

    def piece(self) -> memoryview:
        """Return memory for a piece."""
        try:
            return self.pieces.pop()
        except IndexError:
            return memoryview(bytearray(_PIECE))

    def shared(self, buffer: memoryview, count: int) -> Lease:
        """Return the lease of an input for ``count`` users.  Each gives the lease back once."""
        return [buffer, *[None] * (count - 1)]

    def give_back(self, lease: Lease) -> None:
        """Note that one user no longer reads an input."""
        # The last user takes the first item.  A list's pop is atomic.
        if lease and (buffer := lease.pop()) is not None:
            self.inputs.append(buffer)


class Part:
    """A part of an image: whole members, and perhaps all that follows them.

    The reader takes the parts in order, with :meth:`unpack`.  A thread may decode a later part
    ahead, up to a limit.  Only one thread at a time decodes a part.  Call all other methods from
    the reactor thread.

    :param compression: format of the members.
    :param most_ahead: the most bytes to decode ahead.
    :param spare: provider of memory.
    :ivar needs: bytes that the decoder of this part takes.
    :ivar given: number of compressed bytes received.
    :ivar whole: whether all compressed bytes have been received.
    :ivar ended: whether all decoded bytes have been taken.
    """

    def __init__(self, compression: Compression, most_ahead: int, spare: Spare) -> None:
        self.needs = 0
        self.given = 0
        self.whole = False
        self.ended = False
        self._members = Members(compression, begun=False)
        self._most_ahead = most_ahead
        self._spare = spare
        self._inputs: deque[tuple[memoryview, Lease]] = deque()
        self._lease: Lease = []
        self._used = 0
        # Whether the decoder knows that no input follows.
        self._told = False
        # Pieces decoded ahead, each with its length, and the number of bytes taken from the first.
        self._decoded: deque[tuple[memoryview, int]] = deque()
        self._taken = 0
        self._ahead_by = 0
        self._error: Exception | None = None
        self._running: Shared[None] | None = None
        self._stopping = False

    @property
    def held(self) -> int:
        """Number of compressed bytes that wait for the decoder."""
        return self.given - self._used

    @property
    def has_input(self) -> bool:
        """True if the decoder has not seen all that was received."""
        return bool(self._inputs) or (self.whole and not self._told)

    @property
    def foreign(self) -> bool:
        """True if foreign bytes follow the last member."""
        return self._members.foreign

    @property
    def between(self) -> bool:
        """True if a member has ended, and no other one has begun."""
        return self._members.ended

    def give(self, data: memoryview, lease: Lease) -> None:
        """Add compressed bytes.

        :param lease: the lease of ``data``, given back after the decoding.
        """
        self._inputs.append((data, lease))
        self.given += len(data)

    def check_whole(self) -> None:
        """Check the end of the part.

        :raises bootvol.errors.ImageCorrupt: if the part is incomplete.
        """
        self._members.check_whole()

    def begin_ahead(self, threads: Threads) -> None:
        """Begin to decode ahead, if possible."""
        if self._running is not None and not self._running.ended:
            return
        if self._ahead_by < self._most_ahead and self.has_input and self._error is None:
            self._running = Shared(Deferred.fromCoroutine(threads.run(self._run_ahead)))

    async def stop(self) -> None:
        """Stop decoding ahead."""
        if self._running is not None:
            self._stopping = True
            await outlast(self._running.wait())
            self._running, self._stopping = None, False

    # --- in a thread -----------------------------------------------------------------------------

    def unpack(self, target: memoryview) -> int:
        """Fill ``target`` as far as the input goes.  Blocks.

        :raises bootvol.errors.ImportFailed: if the image is broken, or not supported.
        """
        done = 0
        while done < len(target) and self._decoded:
            piece, length = self._decoded[0]
            fits = min(length - self._taken, len(target) - done)
            target[done : done + fits] = piece[self._taken : self._taken + fits]
            done += fits
            self._taken += fits
            if self._taken == length:
                self._decoded.popleft()
                self._spare.pieces.append(piece)
                self._taken = 0
        self._ahead_by -= done
        if done < len(target):
            if self._error is not None:
                raise self._error
            done += self._decode(target[done:])
            self.ended = done < len(target) and self._told
            if self.ended:
                self._spare.give_back(self._lease)
        return done

    def _run_ahead(self) -> None:
        try:
            while not self._stopping and self._ahead_by < self._most_ahead:
                piece = self._spare.piece()
                length = self._decode(piece)
                if length:
                    self._decoded.append((piece, length))
                    self._ahead_by += length
                else:
                    self._spare.pieces.append(piece)
                if length < len(piece):
                    break
        except Exception as error:
            # Also a shortage of memory: the bytes of the piece are lost, so nothing may follow.
            self._error = error

    def _decode(self, target: memoryview) -> int:
        done = self._members.unpack(target)
        while done < len(target) and self._next_input():
            done += self._members.unpack(target[done:])
        return done

    def _next_input(self) -> bool:
        """Give the decoder its next input; return false if there is none."""
        # Look first: more bytes may come meanwhile, and then the end.
        last = self.whole
        rest = self._members.rest
        if self._inputs:
            former = self._lease
            data, self._lease = self._inputs.popleft()
            self._used += len(data)
            # The rest may be the beginning of a member.
            self._members.give(memoryview(bytes(rest) + data) if rest else data, last=False)
            self._spare.give_back(former)
            return True
        if last and not self._told:
            self._told = True
            self._members.give(rest, last=True)
            return True
        return False
