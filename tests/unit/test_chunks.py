"""Chunked bodies, in the form accepted by Twisted's decoder."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.web.http import (
    _ChunkedTransferDecoder,
    _DataLoss,
    _MalformedChunkedDataError,
)

from bootvol_plugins.http.chunks import Chunks
from tests.fuzzing import fuzz

PLAIN = b"3\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n"
#: Parts of bodies.
PARTS = [b"1\r\na\r\n", b"2\nab\n", b"1;x\r\n", b"\r\n", b"0\r\n", b"3\r\nabc", b"a", b"1\r"]


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
    assert decoded(given) == b"abc0123456789abcdef"
    # The bytes behind the body do not belong to this body: they stay unchanged.
    assert chunks.plain(b"HTTP") == b"HTTP"


def decoded(given: Iterable[bytes]) -> bytes:
    """Return what Twisted's decoder makes of a body.

    :raises Exception: if the body is broken or incomplete.
    """
    content: list[bytes] = []
    ends: list[bytes] = []
    decoder = _ChunkedTransferDecoder(content.append, ends.append)
    for each in given:
        decoder.dataReceived(each)
    assert ends == [b""]
    return b"".join(content)


@pytest.mark.parametrize(
    "body",
    [
        *(b"x\r\nabc", b"-3\r\nabc", b"3\r\nabcd\r\n", b"\r\nabc", b"3" * 20_000),
        *(b"3\r\nabc3\r\nabc\r\n", b"3\r\nabc\r\n-3\r\nabc", b"3\r\nabcX\n0\r\n\r\n"),
    ],
)
@pytest.mark.parametrize("piece", [1, 2, 7, 100_000])
def test_what_is_wrong_is_passed_on(body: bytes, piece: int) -> None:
    chunks = Chunks()
    given = [chunks.plain(body[at : at + piece]) for at in range(0, len(body), piece)]
    with pytest.raises(_MalformedChunkedDataError):
        decoded(given)


def test_a_size_of_too_many_digits() -> None:
    body = b"1" * 17 + b"\r\n"
    assert Chunks().plain(body) == body


@pytest.mark.parametrize("body", [b"3\r\nabc", b"3\r\nab", b"3\r\nabc\r\n", b"3\r\nabc\r\n0\r\n"])
def test_a_body_that_breaks_off(body: bytes) -> None:
    decoder = _ChunkedTransferDecoder(lambda _: None, lambda _: None)
    decoder.dataReceived(Chunks().plain(body))
    with pytest.raises(_DataLoss):
        decoder.noMoreData()


@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_tiny_chunks_become_one(end: bytes) -> None:
    r"""Twisted takes much time for each chunk, so all chunks in a piece of input become one.

    Break: `plugins/bootvol_plugins/http/chunks.py`: `b"%x\r\n%b\r\n" % (len(whole), whole) if whole
    else b""` -> `b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in content)`.
    """
    given = Chunks().plain((b"1" + end + b"a" + end) * 2000)
    assert given == b"7d0\r\n" + b"a" * 2000 + b"\r\n"


def test_trailers_without_end() -> None:
    chunks = Chunks()
    trailer = b"X: y\r\n"
    given = [chunks.plain(each) for each in (b"0\r\n", *[trailer] * 20_000)]
    assert b"".join(given).startswith(trailer)


@fuzz(200)
@given(st.lists(st.binary(max_size=40) | st.sampled_from(PARTS)))
def test_any_bytes(pieces: list[bytes]) -> None:
    """Any split into pieces gives the same content, or the same refusal."""
    assert outcome(pieces) == outcome([b"".join(pieces)])


def outcome(pieces: list[bytes]) -> tuple[bytes, str]:
    """Return the content of a body, and how the body ends."""
    content: list[bytes] = []
    ends: list[bytes] = []
    decoder = _ChunkedTransferDecoder(content.append, ends.append)
    chunks = Chunks()
    try:
        for each in pieces:
            plain = chunks.plain(each)
            if not ends:
                decoder.dataReceived(plain)
    except _MalformedChunkedDataError:
        return b"".join(content), "refused"
    return b"".join(content), "whole" if ends else "incomplete"


@fuzz(100)
@given(st.lists(st.binary(min_size=1)), st.sampled_from([b"\r\n", b"\n", b" \r\n", b";x=1\r\n"]))
def test_content_stays(pieces: list[bytes], end: bytes) -> None:
    sent = b"".join(b"%X%b%b\r\n" % (len(each), end, each) for each in pieces) + b"0\r\n\r\n"
    assert decoded([Chunks().plain(sent)]) == b"".join(pieces)
