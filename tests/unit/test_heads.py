"""Heads of answers, in the form accepted by Twisted's parser."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootvol_plugins.http.heads import (
    LONGEST,
    MOST_LINES,
    MOST_TAKEN,
    HeadTooLong,
    WrongLength,
    as_parsed,
    check_length,
    end_of,
    has_chunks,
    is_interim,
)
from tests.fuzzing import fuzz


@pytest.mark.parametrize(
    ("head", "end"),
    [
        (b"", None),
        (b"HT", None),
        (b"HTTP/1.1 200 OK\r\n", None),
        (b"HTTP/1.1 200 OK\r\n\r\nbody", 19),
        (b"HTTP/1.1 200 OK\n\nbody", 17),
        (b"HTTP/1.1 200 OK\r\nA: b\n\r\n\r\n", 24),
        (b"http/1.0 200 OK\r\n\r\n", 19),
        (b"SSH-2.0-OpenSSH", 0),
        (b"\r\nHTTP/1.1 200 OK\r\n\r\n", 0),
    ],
)
def test_where_a_head_ends(head: bytes, end: int | None) -> None:
    assert end_of(head) == end


@pytest.mark.parametrize(
    "head",
    [b"HTTP/1.1 200 OK\r\n" + b"x" * LONGEST, b"HTTP/1.1 200 OK\r\n" + b"a:b\n" * MOST_LINES],
)
def test_heads_too_long(head: bytes) -> None:
    with pytest.raises(HeadTooLong):
        end_of(head)


@pytest.mark.parametrize(
    ("head", "parsed"),
    [
        (b"HTTP/2 200\r\n\r\n", [b"HTTP/1.1 200"]),
        (b"HTTP/1.0 200 OK\n\n", [b"HTTP/1.0 200 OK"]),
        (b"HTTP/1.1 200 OK\r\nETag : a\r\n\r\n", [b"HTTP/1.1 200 OK", b"ETag: a"]),
        (b"HTTP/1.1 200 OK\r\nDate:\r\n b\r\n\tc\r\n\r\n", [b"HTTP/1.1 200 OK", b"Date: b c"]),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Identity\r\n\r\n", [b"HTTP/1.1 200 OK"]),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\n\r\n", [b"HTTP/1.1 200 OK"]),
        (
            b"HTTP/1.1   200  OK\r\nTransfer-Encoding: identity,, Chunked\r\n\r\n",
            [b"HTTP/1.1 200  OK", b"Transfer-Encoding: Chunked"],
        ),
        (
            b"HTTP/1.1 200 OK\r\nETag: " + b"x" * 20_000 + b"\r\nDate: c\r\nX: y\r\n\r\n",
            [b"HTTP/1.1 200 OK", b"Date: c"],
        ),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", [b"HTTP/1.1 200 OK", b"no colon"]),
    ],
)
def test_what_the_parser_is_given(head: bytes, parsed: list[bytes]) -> None:
    assert as_parsed(head) == [*(line + b"\r\n" for line in parsed), b"\r\n"]


@pytest.mark.parametrize("line", [b"Date: x\r\n", b"x\r\n"])
def test_the_parser_is_given_few_lines(line: bytes) -> None:
    """Each line takes time of the reactor.

    Break: `plugins/bootvol_plugins/http/heads.py`: `if len(taken) > MOST_TAKEN:` -> `if False:`.
    Break: `plugins/bootvol_plugins/http/heads.py`: `if colon and name.lower() not in _NEEDED:` ->
    `if False:`.
    """
    begin, others = b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 1000
    assert len(as_parsed(begin + others + line * 50 + b"\r\n")) == 52
    with pytest.raises(HeadTooLong):
        as_parsed(begin + line * MOST_TAKEN + b"\r\n")


def test_whether_chunks_follow() -> None:
    assert has_chunks([b"HTTP/1.1 200 OK\r\n", b"transfer-encoding:  Chunked\r\n", b"\r\n"])
    assert not has_chunks([b"HTTP/1.1 200 OK\r\n", b"X: chunked\r\n", b"\r\n"])


@pytest.mark.parametrize(
    "header",
    [
        "Content-Length: 7",
        "content-length: 007, 7",
        "Content-Length: 7\r\nContent-Length: 7",
        "X: y",
        # With a transfer encoding, the length does not count.
        "Content-Length: -1\r\nTransfer-Encoding: chunked",
    ],
)
def test_possible_lengths(header: str) -> None:
    check_length(as_parsed(f"HTTP/1.1 200 OK\r\n{header}\r\n\r\n".encode()))


@pytest.mark.parametrize(
    ("header", "fault"),
    [
        ("Content-Length: -1", "is no number"),
        ("Content-Length: +7", "is no number"),
        ("Content-Length:", "is no number"),
        ("Content-Length: 7,", "is no number"),
        ("Content-Length: 0x7", "is no number"),
        ("Content-Length: 7 8", "is no number"),
        ("Content-Length: 7, 8", "states different lengths"),
        ("Content-Length: 7\r\nCONTENT-LENGTH: 8", "states different lengths"),
        (f"Content-Length: {'1' * 5000}", "is no number"),
    ],
)
def test_impossible_lengths(header: str, fault: str) -> None:
    lines = as_parsed(f"HTTP/1.1 200 OK\r\n{header}\r\n\r\n".encode())
    with pytest.raises(WrongLength, match=fault):
        check_length(lines)


def test_other_heads_follow() -> None:
    assert is_interim(b"HTTP/1.1 103 Early Hints\r\n\r\n")
    assert not is_interim(b"HTTP/1.1 200 100\r\n\r\n")


@fuzz(100)
@given(st.binary(), st.integers(0, 300))
def test_any_bytes_end_the_same_however_they_come(tail: bytes, cut: int) -> None:
    come = b"HTTP/1.1 200 OK\r\n" + tail
    with suppress(HeadTooLong):
        end = end_of(come)
        before = end_of(come[:cut])
        assert before in (None, end)
        if end:
            lines = as_parsed(come[:end])
            assert lines[-1] == b"\r\n"
            with suppress(WrongLength):
                check_length(lines)
