"""Reads a disk from an NBD server, over a connected socket.

`doc/proto.md` of the NetworkBlockDevice project describes the protocol.  This client uses fixed
newstyle negotiation, then reads with structured replies, and block status with the metadata context
``base:allocation``.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Sequence
from typing import Final, NoReturn

from zope.interface import implementer

from bootvol.errors import ImageCorrupt
from bootvol.interfaces import IImageStream, ISparseStream
from bootvol.model import Extent
from bootvol.threads import Threads

#: The longest text of an error, in bytes.
_LONGEST_TEXT: Final = 64 * 1024

_GREETING: Final = b"NBDMAGICIHAVEOPT"
_OPTION: Final = b"IHAVEOPT"
_OPTION_REPLY: Final = 0x3E889045565A9
_REQUEST: Final = 0x25609513
_REPLY: Final = 0x668E33EF

_FIXED_NEWSTYLE_NO_ZEROES: Final = 3
_STRUCTURED, _GO, _SET_CONTEXT = 8, 7, 10
_ACK, _INFO, _CONTEXT = 1, 3, 4
_READ, _DISCONNECT, _BLOCK_STATUS = 0, 2, 7
_NONE, _DATA, _HOLE, _STATUS = 0, 1, 2, 5
_DONE: Final = 1
#: The metadata context with the extents of zeros, and its flag for zeros.
_ALLOCATION: Final = b"base:allocation"
_ZERO: Final = 2
#: The longest range of a block status request, and the longest answer (QEMU's limit); in bytes.
_LONGEST_RANGE: Final = 0xFFFF0000
_LONGEST_STATUS: Final = 4 + 1024 * 1024


class NbdFailed(Exception):
    """The server broke off, or does not follow the protocol."""


class _Refused(NbdFailed):
    """The server does not know an option."""


class NbdSilent(NbdFailed):
    """The server does not answer."""


class NbdConnection:
    """A connection to a server.  The methods block; never call two at once.

    :param sock: a connected socket, owned by this object from now on.
    :param silence: seconds to wait for an answer, before the server is given up.
    :ivar size: size of the disk in bytes, after :meth:`negotiate`.
    """

    def __init__(self, sock: socket.socket, silence: int) -> None:
        self._socket = sock
        self._silence = silence
        self._until = 0.0
        # Python's own timeout does not allow a call to wait for all bytes at once.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", silence, 0))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", silence, 0))
        self.size = 0
        self._asked: tuple[int, int] | None = None
        self._longest = 0
        self._context: int | None = None

    def negotiate(self) -> None:
        """Negotiate with the server.

        :raises NbdFailed: if the negotiation fails.
        """
        self._until = time.monotonic() + self._silence
        greeting = self._take(18)
        if not greeting.startswith(_GREETING):
            raise NbdFailed("no greeting")
        self._send(struct.pack(">I", _FIXED_NEWSTYLE_NO_ZEROES))
        self._option(_STRUCTURED, b"")
        # The export has no name, and the query asks for one context.
        question = struct.pack(">III", 0, 1, len(_ALLOCATION)) + _ALLOCATION
        with contextlib.suppress(_Refused):
            for kind, data in self._option(_SET_CONTEXT, question):
                if kind == _CONTEXT and data[4:] == _ALLOCATION:
                    (self._context,) = struct.unpack_from(">I", data)
        # The export's name is empty, and the request asks for no further information.
        for kind, data in self._option(_GO, bytes(6)):
            if kind == _INFO and data[:2] == b"\0\0" and len(data) == 12:
                (self.size,) = struct.unpack_from(">Q", data, 2)

    def read(self, offset: int, target: memoryview) -> None:
        """Fill ``target`` with the disk's bytes at ``offset``.

        The method also requests the next range of the same length, so that the server can read that
        range meanwhile.  A shorter read makes no such request: such a read ends before skipped
        zeros, or at the end of the disk.

        :param target: a buffer that is not empty.
        :raises NbdFailed: if the server breaks off.
        :raises ImageCorrupt: if the server cannot read the image there.
        """
        self._until = time.monotonic() + self._silence
        if self._asked != (offset, len(target)):
            self._drain()
            self._ask(_READ, offset, len(target))
        self._asked = None
        self._reply(offset, target)
        end = offset + len(target)
        self._longest = max(self._longest, len(target))
        if len(target) == self._longest and end < self.size:
            self._asked = end, min(len(target), self.size - end)
            self._ask(_READ, *self._asked)

    def extents(self, offset: int, length: int) -> Sequence[Extent]:
        """Return the extents from ``offset`` on; see :meth:`bootvol.interfaces.ISparse.extents`.

        :raises NbdFailed: if the server breaks off.
        :raises ImageCorrupt: if the server cannot read the image there.
        """
        if self._context is None:
            return [Extent(length, zero=False)]
        self._until = time.monotonic() + self._silence
        self._drain()
        self._ask(_BLOCK_STATUS, offset, min(length, _LONGEST_RANGE))
        found: list[Extent] = []
        ended = False
        while not ended:
            flags, kind, size = self._head()
            ended = bool(flags & _DONE)
            if kind == _STATUS and not found:
                found = self._status(size)
            elif kind > _STATUS:
                self._fail(size, offset)
            elif kind != _NONE:
                raise NbdFailed("no block status, or more than one")
        if not found:
            raise NbdFailed("no block status")
        return found

    def close(self) -> None:
        """Send a disconnect request, and close the socket."""
        with contextlib.suppress(OSError):
            self._socket.sendall(struct.pack(">IHHQQI", _REQUEST, 0, _DISCONNECT, 0, 0, 0))
        self._socket.close()

    def _ask(self, command: int, offset: int, length: int) -> None:
        self._send(struct.pack(">IHHQQI", _REQUEST, 0, command, 0, offset, length))

    def _drain(self) -> None:
        """Receive and drop the range that was requested ahead, if any."""
        if self._asked is not None:
            (offset, length), self._asked = self._asked, None
            self._reply(offset, memoryview(bytearray(length)))

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise NbdFailed(str(error)) from error

    def _option(self, option: int, data: bytes) -> list[tuple[int, bytes]]:
        """Request an option; return the server's replies before its acknowledgement."""
        self._send(_OPTION + struct.pack(">II", option, len(data)) + data)
        said: list[tuple[int, bytes]] = []
        while True:
            magic, _, kind, length = struct.unpack(">QIII", self._take(20))
            if magic != _OPTION_REPLY or length > _LONGEST_TEXT:
                raise NbdFailed(f"option {option} is not answered")
            text = self._take(length)
            if kind >> 31:
                raise _Refused(f"option {option} is refused")
            if kind == _ACK:
                return said
            said.append((kind, text))

    def _reply(self, start: int, target: memoryview) -> None:
        """Receive the whole reply to a read at ``start``.  QEMU sends the chunks in order.

        :raises NbdFailed: if the chunks are not the whole range.  Parts of ``target`` that no chunk
            fills would keep older bytes.
        """
        done, ended = 0, False
        while not ended:
            flags, kind, length = self._head()
            ended = bool(flags & _DONE)
            if kind == _DATA:
                (offset,) = struct.unpack(">Q", self._take(8))
                place = self._place(target, done, offset - start, length - 8)
                self._fill(place)
            elif kind == _HOLE:
                (offset, hole) = struct.unpack(">QI", self._take(12))
                place = self._place(target, done, offset - start, hole)
                place[:] = bytes(hole)
            elif kind == _NONE:
                continue
            else:
                self._fail(length, start)
            done += len(place)
        if done < len(target):
            raise NbdFailed("an incomplete reply")

    def _head(self) -> tuple[int, int, int]:
        """Receive the header of a reply chunk: flags, kind, and length of the rest."""
        magic, flags, kind, _, length = struct.unpack(">IHHQI", self._take(20))
        if magic != _REPLY:
            raise NbdFailed("no reply")
        return flags, kind, length

    def _status(self, length: int) -> list[Extent]:
        """Receive the reply chunk with the extents."""
        if not 12 <= length <= _LONGEST_STATUS or length % 8 != 4:
            raise NbdFailed("no block status")
        data = memoryview(self._take(length))
        if struct.unpack_from(">I", data) != (self._context,):
            raise NbdFailed("the block status of something else")
        said = [(size, bool(flags & _ZERO)) for size, flags in struct.iter_unpack(">II", data[4:])]
        if not all(size for size, _ in said):
            raise NbdFailed("an empty extent")
        return [Extent(*each) for each in said]

    def _fail(self, length: int, start: int) -> NoReturn:
        """Receive the reply chunk with an error, and raise."""
        self._take(min(length, _LONGEST_TEXT))
        raise ImageCorrupt(f"The image cannot be read at byte {start} of its disk.")

    def _place(self, target: memoryview, done: int, at: int, length: int) -> memoryview:
        """Return the place of a chunk in ``target``, behind the bytes that have come."""
        if at != done or not 0 <= length <= len(target) - done:
            raise NbdFailed("data outside the requested range")
        return target[done : done + length]

    def _take(self, length: int) -> bytes:
        data = bytearray(length)
        self._fill(memoryview(data))
        return bytes(data)

    def _fill(self, target: memoryview) -> None:
        while target:
            if time.monotonic() > self._until:
                # This limit also ends an endless answer of a server that is not silent.
                raise NbdSilent("the server does not come to an end")
            try:
                # Receive all bytes at once: a wake-up for each small piece costs more than the
                # pieces.
                count = self._socket.recv_into(target, 0, socket.MSG_WAITALL)
            except BlockingIOError as error:
                raise NbdSilent("the server is silent") from error
            except OSError as error:
                raise NbdFailed(str(error)) from error
            if not count:
                raise NbdFailed("the server has gone")
            target = target[count:]


@implementer(IImageStream, ISparseStream)
class NbdStream:
    """The disk as a stream.

    :param connection: a connection after its negotiation.
    """

    def __init__(self, connection: NbdConnection, threads: Threads) -> None:
        self.size: int | None = connection.size
        self.offset = 0
        self.validator: str | None = None
        self._connection = connection
        self._threads = threads
        self._next = 0

    async def read_into(self, target: memoryview) -> int:
        """See :meth:`bootvol.interfaces.IImageStream.read_into`."""
        target = target[: self._connection.size - self._next]
        if target:
            await self._threads.run(self._connection.read, self._next, target)
        self._next += len(target)
        return len(target)

    async def extents(self, offset: int, length: int) -> Sequence[Extent]:
        """See :meth:`bootvol.interfaces.ISparse.extents`."""
        return await self._threads.run(self._connection.extents, offset, length)

    def skip(self, length: int) -> None:
        """See :meth:`bootvol.interfaces.ISparseStream.skip`."""
        self._next += length

    async def close(self) -> None:
        """See :meth:`bootvol.interfaces.IImageStream.close`."""
        await self._threads.run(self._connection.close)
