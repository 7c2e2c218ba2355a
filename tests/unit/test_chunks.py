"""Chunked bodies, in the form accepted by Twisted's decoder."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootvol_plugins.http.chunks import Chunks
from tests.fuzzing import fuzz

PLAIN = b"3\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    "body",
    [
        PLAIN,
        PLAIN.replace(b"\r\n", b"\n"),
        b"3  \r\nabc\r\n10\t\r\n0123456789abcdef\r\n0 \r\n\r\n",
        b"3 ; a = b\r\nabc\r\n0010;c\r\n0123456789abcdef\r\n000;d\r\nX: y\r\nZ: 0\r\n\r\n",
        b"3;" + b"a" * 5000 + b"\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n",
    ],
)
@pytest.mark.parametrize("piece", [1, 2, 7, 10_000])
def test_what_the_decoder_is_given(body: bytes, piece: int) -> None:
    chunks = Chunks()
    given = [chunks.plain(body[at : at + piece]) for at in range(0, len(body), piece)]
    assert b"".join(given) == PLAIN
    # The bytes behind the body do not belong to this body: they stay unchanged.
    assert chunks.plain(b"HTTP") == b"HTTP"


@pytest.mark.parametrize(
    "body",
    [b"x\r\nabc", b"-3\r\nabc", b"3\r\nabcd\r\n", b"\r\nabc", b"1" * 17 + b"\r\n", b"3" * 20_000],
)
def test_what_is_wrong_is_passed_on(body: bytes) -> None:
    assert Chunks().plain(body) == body


def test_trailers_without_end() -> None:
    chunks = Chunks()
    trailer = b"X: y\r\n"
    given = [chunks.plain(each) for each in (b"0\r\n", *[trailer] * 20_000)]
    assert b"".join(given).startswith(trailer)


@fuzz(100)
@given(st.lists(st.binary(max_size=40)))
def test_any_bytes(pieces: list[bytes]) -> None:
    chunks = Chunks()
    given = b"".join(map(chunks.plain, pieces))
    # Any split into pieces.
    assert given == Chunks().plain(b"".join(pieces))


@fuzz(100)
@given(st.lists(st.binary(min_size=1)), st.sampled_from([b"\r\n", b"\n", b" \r\n", b";x=1\r\n"]))
def test_content_stays(pieces: list[bytes], end: bytes) -> None:
    sent = b"".join(b"%X%b%b\r\n" % (len(each), end, each) for each in pieces) + b"0\r\n\r\n"
    plain = b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in pieces) + b"0\r\n\r\n"
    assert Chunks().plain(sent) == plain
