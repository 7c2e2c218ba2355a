"""Servers that break off, lie, or never end."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from bootvol.errors import ImageCorrupt
from bootvol.imaging.nbd import NbdConnection, NbdFailed, NbdSilent
from bootvol.model import Extent
from tests.waiting import LIMIT

GREETING = b"NBDMAGICIHAVEOPT\0\3"
SIZE = 4096


def option(number: int, kind: int, data: bytes = b"") -> bytes:
    """Return a reply to an option."""
    return struct.pack(">QIII", 0x3E889045565A9, number, kind, len(data)) + data


#: The replies of a server that agrees to everything.
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
    """Serve prepared replies to any requests, then disconnect.

    :param again: sent repeatedly before the end, until nobody reads any more.
    """
    ours, theirs = socket.socketpair()

    def serve() -> None:
        # The other side may disconnect at any time.
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
        DONE,
        data(0, b"a" * (SIZE - 1)) + DONE,
        data(0, b"a" * (SIZE // 2)) * 2 + DONE,
        data(SIZE // 2, b"a" * (SIZE // 2)) + data(0, b"a" * (SIZE // 2)) + DONE,
        data(0, b"a" * 10) + chunk(1, 2, struct.pack(">QI", 20, SIZE - 20)),
    ],
    ids=range(13),
)
def test_what_is_no_answer(reply: bytes) -> None:
    """A reply counts only if the reply is the whole range: the rest would keep older bytes.

    Break: `src/bootvol/imaging/nbd.py`: `if done < len(target):` -> `if False:`.
    Break: `src/bootvol/imaging/nbd.py`: `if at != done or` -> `if`.
    """
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


def test_a_server_that_cuts_the_connection_off() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        connection = NbdConnection(socket.create_connection(listening.getsockname()), LIMIT)
        theirs, _ = listening.accept()
    # Reset the connection, instead of an orderly end.
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.close()
    with pytest.raises(NbdFailed, match="reset"):
        connection.negotiate()
    connection.close()


def test_a_server_that_is_silent() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        connection = NbdConnection(ours, 1)
        with pytest.raises(NbdSilent):
            connection.negotiate()
        connection.close()


def status(*extents: tuple[int, int], context: int = CONTEXT) -> bytes:
    """Return a part with the zeros of a range: lengths and flags."""
    told = b"".join(struct.pack(">II", *each) for each in extents)
    return chunk(0, 5, struct.pack(">I", context) + told)


def test_a_server_tells_where_zeros_are() -> None:
    replies = (status((1024, 0), (512, 3), (512, 2), (4096, 1)), DONE)
    with server(GREETING, AGREED, *replies) as connection:
        connection.negotiate()
        assert connection.extents(0, SIZE) == [
            Extent(1024, zero=False),
            Extent(512, zero=True),
            Extent(512, zero=True),
            # A hole need not be zeros, and the last extent may reach beyond the range.
            Extent(4096, zero=False),
        ]


def test_what_was_asked_for_ahead_is_not_mistaken_for_something_else() -> None:
    half = SIZE // 2
    ahead = (data(half, b"x" * half), DONE)
    replies = (data(0, b"a" * half), DONE, *ahead, status((half, 2)), DONE)
    with server(GREETING, AGREED, *replies, data(100, b"b" * 10), DONE) as connection:
        connection.negotiate()
        target = memoryview(bytearray(half))
        connection.read(0, target)
        assert bytes(target) == b"a" * half
        assert connection.extents(half, half) == [Extent(half, zero=True)]
        connection.read(100, target[:10])
        assert bytes(target[:10]) == b"b" * 10


def test_a_server_that_tells_nothing() -> None:
    refused = option(10, 1 << 31 | 1) + AGREED[len(option(8, 1)) + len(MAPPED) :]
    for answer in (refused, option(10, 1) + AGREED[len(option(8, 1)) + len(MAPPED) :]):
        with server(GREETING, option(8, 1), answer, data(0, b"a" * SIZE), DONE) as connection:
            connection.negotiate()
            assert connection.extents(0, SIZE) == [Extent(SIZE, zero=False)]
            assert read(connection) == b"a" * SIZE


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        DONE,
        bytes(20),
        status(),
        status((0, 2)),
        status((512, 2)) + status((512, 2)),
        data(0, b"a"),
        status((SIZE, 2), context=CONTEXT + 1),
        chunk(0, 5, bytes(11)),
        chunk(0, 5, struct.pack(">I", CONTEXT) + bytes(9)),
        struct.pack(">IHHQI", 0x668E33EF, 0, 5, 0, 2**31 - 4),
    ],
    ids=range(11),
)
def test_what_does_not_tell_where_zeros_are(reply: bytes) -> None:
    with server(GREETING, AGREED, reply) as connection:
        connection.negotiate()
        with pytest.raises(NbdFailed):
            connection.extents(0, SIZE)


def test_zeros_that_cannot_be_told() -> None:
    with server(GREETING, AGREED, chunk(1, 1 << 15 | 1, bytes(6))) as connection:
        connection.negotiate()
        with pytest.raises(ImageCorrupt, match="at byte 512 of its disk"):
            connection.extents(512, 512)
