"""Answers whose bodies end in unusual ways: without a length, in chunks, or half way."""

from __future__ import annotations

from typing import Final

import attrs

from bootvol.testing.answers import NO_LENGTH, Asked, Habit, answer, gzipped, right


def _until_close_but_parts(asked: Asked) -> bytes:
    """State a length for parts, but not for the whole content."""
    return right(asked) if asked.range else right(asked, length=NO_LENGTH)


def _breaks_soon(asked: Asked) -> bytes:
    """End each connection after 100,000 bytes."""
    head, end, body = right(asked).partition(b"\r\n\r\n")
    return head + end + body[:100_000]


def _breaks_then_small_parts(asked: Asked) -> bytes:
    """End the first connection half way.  Then send the rest in parts of 100,000 bytes."""
    if asked.range is None:
        said = right(asked)
        return said[: len(said) // 2]
    start, end = asked.range
    last = min(end, start + 100_000) - 1
    return right(attrs.evolve(asked, headers={"range": f"bytes={start}-{last}"}))


def _breaks_in_chunks(asked: Asked) -> bytes:
    """End the first body half way, as if it were whole: a proxy that lost its own source.

    The first answer states the length of the whole content.
    """
    if asked.range is not None:
        return right(asked)
    content = asked.content[: len(asked.content) // 2] if asked.times == 2 else asked.content
    return answer(_chunks(content), 'ETag: "e"', "Transfer-Encoding: chunked", length=NO_LENGTH)


def _breaks_then_until_close(asked: Asked) -> bytes:
    """End the first connection half way.  Then send the rest without a length."""
    if asked.range is None:
        said = right(asked)
        return said[: len(said) // 2]
    return right(asked, length=NO_LENGTH)


def _breaking(times: int, make: Habit) -> Habit:
    """Return a habit that ends the first ``times`` connections half way."""

    def habit(asked: Asked) -> bytes:
        said = make(asked)
        # The first request of a source only probes the image.
        broken = asked.range != (0, 1) and asked.times <= times + 1
        return said[: len(said) // 2] if broken else said

    return habit


def _chunks(content: bytes, extension: str = "", trailer: str = "", line: str = "\r\n") -> bytes:
    pieces = [content[at : at + 50_000] for at in range(0, len(content), 50_000)]
    sizes = [f"{len(each):x}{extension}{line}".encode() for each in pieces]
    ends = f"{line}0{line}{trailer}{line}".encode()
    return line.encode().join(map(bytes.__add__, sizes, pieces)) + ends


def _chunked(*headers: str, **how: str) -> Habit:
    """Return a habit that sends chunks."""
    said = headers or ("Transfer-Encoding: chunked",)
    return lambda asked: answer(_chunks(asked.content, **how), *said, length=NO_LENGTH)


def _chunked_and_length(asked: Asked) -> bytes:
    """State a length beside chunks.  Clients must ignore the length (RFC 9112, section 6.3)."""
    return answer(_chunks(asked.content), "Transfer-Encoding: chunked", length=7)


ENDINGS: Final[dict[str, Habit]] = {
    "http-1.0": lambda asked: answer(asked.content, version="HTTP/1.0"),
    "until-close": lambda asked: answer(asked.content, length=NO_LENGTH),
    "until-close-1.0": lambda asked: answer(asked.content, length=NO_LENGTH, version="HTTP/1.0"),
    "until-close-gz": lambda asked: answer(gzipped(asked.content), length=NO_LENGTH),
    "until-close-but-parts": _until_close_but_parts,
    "same-length-twice": lambda asked: answer(
        asked.content, f"Content-Length: {len(asked.content)}"
    ),
    "more-than-stated": lambda asked: answer(asked.content + b"?", length=len(asked.content)),
    "chunked": _chunked(),
    "chunked-with-more": _chunked(
        "transfer-encoding: Chunked", extension=";a=b", trailer="X-D: x\r\n"
    ),
    "chunk-spaces": _chunked(extension="  "),
    "chunk-spaces-and-more": _chunked(extension="\t; a = b"),
    "chunk-line-feeds": _chunked(line="\n", trailer="X-D: x\n"),
    "chunked-in-list": _chunked("Transfer-Encoding: identity, chunked,"),
    "chunked-in-two": _chunked("Transfer-Encoding: identity", "Transfer-Encoding: chunked"),
    "chunked-and-length": _chunked_and_length,
}
BROKEN: Final[dict[str, Habit]] = {
    "breaks-until-close": _breaking(1, ENDINGS["until-close"]),
    "breaks-until-close-gz": _breaking(1, ENDINGS["until-close-gz"]),
    "breaks-until-close-but-parts": _breaking(1, ENDINGS["until-close-but-parts"]),
    "always-breaks": _breaking(10**9, ENDINGS["until-close"]),
    "breaks-soon": _breaks_soon,
    "breaks-soon-gz": lambda asked: _breaks_soon(
        attrs.evolve(asked, content=gzipped(asked.content))
    ),
    "breaks-then-small-parts": _breaks_then_small_parts,
    "breaks-then-small-parts-gz": lambda asked: _breaks_then_small_parts(
        attrs.evolve(asked, content=gzipped(asked.content))
    ),
    "breaks-then-until-close": _breaks_then_until_close,
    "breaks-in-chunks": _breaks_in_chunks,
}
