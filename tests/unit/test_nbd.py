"""What becomes of servers that break off, lie, or never come to an end."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from bootvol.errors import ImageCorrupt
from bootvol.imaging.nbd import NbdConnection, NbdFailed, NbdSilent

GREETING = b"NBDMAGICIHAVEOPT\0\3"
SIZE = 4096


def option(number: int, kind: int, data: bytes = b"") -> bytes:
    """Return a reply to an option."""
    return struct.pack(">QIII", 0x3E889045565A9, number, kind, len(data)) + data


#: How a server agrees to everything.
CONTEXT = 7
MAPPED = option(10, 4, struct.pack(">I", CONTEXT) + b"base:allocation") + option(10, 1)
AGREED = option(8, 1) + MAPPED + option(7, 3, struct.pack(">HQH", 0, SIZE, 0)) + option(7, 1)


def chunk(flags: int, kind: int, data: bytes = b"") -> bytes:
    """Return a part of the reply to a read."""
    return struct.pack(">IHHQI", 0x668E33EF, flags, kind, 0, len(data)) + data


def data(offset: int, content: bytes) -> bytes:
    """Return a part with the disk's bytes."""
    return chunk(0, 1, struct.pack(">Q", offset) + content)


DONE = chunk(1, 0)


@contextmanager
def server(*replies: bytes, again: bytes = b"", silence: int = 1) -> Iterator[NbdConnection]:
    """Serve what was written down before, whatever is asked for, and then leave.

    :param again: is sent over and over before that, until nobody takes it any more.
    """
    ours, theirs = socket.socketpair()

    def serve() -> None:
        # The other side may leave at any time.
        with theirs, suppress(OSError):
            for reply in replies:
                theirs.sendall(reply)
            while again:
                theirs.sendall(again)
            theirs.shutdown(socket.SHUT_WR)
            while theirs.recv(4096):
                pass

    thread = threading.Thread(target=serve)
    thread.start()
    connection = NbdConnection(ours, silence)
    try:
        yield connection
    finally:
        connection.close()
        thread.join()


def read(connection: NbdConnection) -> bytes:
    """Read the whole disk."""
    target = memoryview(bytearray(SIZE))
    connection.read(0, target)
    return bytes(target)


def test_a_server_that_is_right() -> None:
    hole = chunk(0, 2, struct.pack(">QI", 1024, 2048))
    parts = data(0, b"a" * 1024) + hole + data(3072, b"b" * 1024)
    with server(GREETING, AGREED, parts, DONE) as connection:
        connection.negotiate()
        assert connection.size == SIZE
        assert read(connection) == b"a" * 1024 + bytes(2048) + b"b" * 1024


@pytest.mark.parametrize(
    "replies",
    [
        [],
        [b"HTTP/1.1 400 Bad Request"],
        [GREETING],
        [GREETING, option(8, 1 << 31 | 1)],
        [GREETING, option(8, 1), struct.pack(">QIII", 1, 7, 1, 0)],
        [GREETING, option(8, 1), struct.pack(">QIII", 0x3E889045565A9, 7, 3, 2**31)],
    ],
)
def test_no_terms_are_come_to(replies: list[bytes]) -> None:
    with server(*replies) as connection, pytest.raises(NbdFailed):
        connection.negotiate()


def test_a_size_that_is_cut_short_is_none() -> None:
    with server(
        GREETING, option(8, 1), MAPPED, option(7, 3, b"\0\0\1"), option(7, 1)
    ) as connection:
        connection.negotiate()
        assert connection.size == 0


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        bytes(20),
        data(0, b"a" * 100),
        data(SIZE - 10, b"a" * 11),
        data(SIZE + 1, b"a"),
        data(2**63, b"a"),
        chunk(0, 1, b"\0" * 4),
        chunk(0, 2, struct.pack(">QI", 1, SIZE)),
    ],
    ids=range(8),
)
def test_what_is_no_answer(reply: bytes) -> None:
    with server(GREETING, AGREED, reply) as connection:
        connection.negotiate()
        with pytest.raises(NbdFailed):
            read(connection)


def test_a_disk_that_cannot_be_read_there() -> None:
    with server(GREETING, AGREED, chunk(1, 1 << 15 | 1, bytes(6))) as connection:
        connection.negotiate()
        with pytest.raises(ImageCorrupt, match="at byte 0 of its disk"):
            read(connection)


def _negotiated(connection: NbdConnection) -> None:
    connection.negotiate()
    read(connection)


@pytest.mark.parametrize(
    ("replies", "again", "ask"),
    [
        ([GREETING, option(8, 1)], option(7, 3), NbdConnection.negotiate),
        ([GREETING, AGREED], chunk(0, 0), _negotiated),
        ([GREETING, AGREED], chunk(0, 2, struct.pack(">QI", 0, 0)), _negotiated),
    ],
    ids=range(3),
)
def test_what_never_comes_to_an_end(
    replies: list[bytes], again: bytes, ask: Callable[[NbdConnection], None]
) -> None:
    with server(*replies, again=again) as connection, pytest.raises(NbdSilent):
        ask(connection)


def test_a_server_that_has_gone() -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(GREETING)
    theirs.close()
    connection = NbdConnection(ours, 1)
    with pytest.raises(NbdFailed):
        connection.negotiate()
    connection.close()


def test_a_server_that_is_silent() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        connection = NbdConnection(ours, 1)
        with pytest.raises(NbdSilent):
            connection.negotiate()
        connection.close()
