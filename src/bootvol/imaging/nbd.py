"""Reads a disk from a server of the NBD protocol, by way of a socket that is connected already.

The protocol is in `doc/proto.md` of the NetworkBlockDevice project: fixed newstyle negotiation,
then reads that are answered by structured replies.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Final

from zope.interface import implementer

from bootvol.errors import ImageCorrupt
from bootvol.interfaces import IImageStream
from bootvol.threads import Threads

#: Bytes asked for at a time; servers need not take more.
_LONGEST: Final = 32 * 1024 * 1024
#: The longest text of an error, in bytes.
_LONGEST_TEXT: Final = 64 * 1024

_GREETING: Final = b"NBDMAGICIHAVEOPT"
_OPTION: Final = b"IHAVEOPT"
_OPTION_REPLY: Final = 0x3E889045565A9
_REQUEST: Final = 0x25609513
_REPLY: Final = 0x668E33EF

_FIXED_NEWSTYLE_NO_ZEROES: Final = 3
_STRUCTURED, _GO = 8, 7
_ACK, _INFO = 1, 3
_READ, _DISCONNECT = 0, 2
_NONE, _DATA, _HOLE = 0, 1, 2
_DONE: Final = 1


class NbdFailed(Exception):
    """The server broke off, or does not keep to the protocol."""


class NbdConnection:
    """A connection; its methods block, no two at once.

    :param sock: connected; given away with this.
    :ivar size: of the disk in bytes, once :meth:`negotiate` has been called.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.size = 0

    def negotiate(self) -> None:
        """Come to terms with the server.

        :raises NbdFailed: that cannot be.
        """
        greeting = self._take(18)
        if not greeting.startswith(_GREETING):
            raise NbdFailed("no greeting")
        self._socket.sendall(struct.pack(">I", _FIXED_NEWSTYLE_NO_ZEROES))
        self._option(_STRUCTURED, b"")
        # The export's name is empty, and no further information is asked for.
        for kind, data in self._option(_GO, bytes(6)):
            if kind == _INFO and data[:2] == b"\0\0":
                (self.size,) = struct.unpack_from(">Q", data, 2)

    def read(self, offset: int, target: memoryview) -> None:
        """Fill ``target`` with the disk's bytes at ``offset``.

        :raises NbdFailed: the server broke off.
        :raises ImageCorrupt: the server cannot read the image there.
        """
        while target:
            piece = target[:_LONGEST]
            request = (_REQUEST, 0, _READ, 0, offset, len(piece))
            self._socket.sendall(struct.pack(">IHHQQI", *request))
            while not self._chunk(offset, piece):
                pass
            offset, target = offset + len(piece), target[len(piece) :]

    def close(self) -> None:
        """Take leave of the server."""
        with contextlib.suppress(OSError):
            self._socket.sendall(struct.pack(">IHHQQI", _REQUEST, 0, _DISCONNECT, 0, 0, 0))
        self._socket.close()

    def _option(self, option: int, data: bytes) -> list[tuple[int, bytes]]:
        """Ask for an option; return what the server says to it before it agrees."""
        self._socket.sendall(_OPTION + struct.pack(">II", option, len(data)) + data)
        said: list[tuple[int, bytes]] = []
        while True:
            magic, _, kind, length = struct.unpack(">QIII", self._take(20))
            if magic != _OPTION_REPLY or length > _LONGEST_TEXT or kind >> 31:
                raise NbdFailed(f"option {option} is refused")
            text = self._take(length)
            if kind == _ACK:
                return said
            said.append((kind, text))

    def _chunk(self, start: int, target: memoryview) -> bool:
        """Take one chunk of a reply to a read at ``start``; return whether it is the last."""
        magic, flags, kind, _, length = struct.unpack(">IHHQI", self._take(20))
        if magic != _REPLY:
            raise NbdFailed("no reply")
        if kind == _DATA:
            place = self._place(start, target, length - 8)
            self._fill(place)
        elif kind == _HOLE:
            (offset, hole) = struct.unpack(">QI", self._take(12))
            if not start <= offset <= offset + hole <= start + len(target):
                raise NbdFailed("a hole outside of what was asked for")
            target[offset - start : offset - start + hole] = bytes(hole)
        elif kind != _NONE:
            self._take(min(length, _LONGEST_TEXT))
            raise ImageCorrupt(f"The image cannot be read at byte {start} of its disk.")
        return bool(flags & _DONE)

    def _place(self, start: int, target: memoryview, length: int) -> memoryview:
        (offset,) = struct.unpack(">Q", self._take(8))
        if not 0 < length <= len(target) - (offset - start) or offset < start:
            raise NbdFailed("data outside of what was asked for")
        return target[offset - start : offset - start + length]

    def _take(self, length: int) -> bytes:
        data = bytearray(length)
        self._fill(memoryview(data))
        return bytes(data)

    def _fill(self, target: memoryview) -> None:
        while target:
            try:
                count = self._socket.recv_into(target)
            except OSError as error:
                raise NbdFailed(str(error)) from error
            if not count:
                raise NbdFailed("the server has gone")
            target = target[count:]


@implementer(IImageStream)
class NbdStream:
    """The disk as a stream.

    :param connection: has been negotiated.
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
        await self._threads.run(self._connection.read, self._next, target)
        self._next += len(target)
        return len(target)

    async def close(self) -> None:
        """See :meth:`bootvol.interfaces.IImageStream.close`."""
        await self._threads.run(self._connection.close)
