"""Requests, and the bytes of answers to them, for servers whose every byte is the test's."""

from __future__ import annotations

import re
from typing import Any, Final

import attrs

_RANGE: Final = re.compile(r"bytes=(\d+)-(\d*)")
#: The length of an answer that states none.
NO_LENGTH: Final = -1


@attrs.frozen
class Asked:
    """A request.

    :ivar method: GET, say.
    :ivar path: as it came.
    :ivar headers: by their names in lower case.
    :ivar content: bytes of the image that every habit serves.
    :ivar times: how often this path was asked for, this time included.
    """

    method: str
    path: str
    headers: dict[str, str]
    content: bytes
    times: int

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.partition("?")[0].rpartition("/")[2]

    @property
    def range(self) -> tuple[int, int] | None:
        """The first byte that is asked for, and the one after the last; None for the whole."""
        found = _RANGE.fullmatch(self.headers.get("range", ""))
        if found is None:
            return None
        end = int(found[2]) + 1 if found[2] else len(self.content)
        return int(found[1]), min(end, len(self.content))


def answer(
    body: bytes,
    *headers: str,
    status: str = "200 OK",
    version: str = "HTTP/1.1",
    length: int | None = None,
    line: str = "\r\n",
) -> bytes:
    """Return an answer.

    :param length: that is stated; by default that of the body, and none if negative.
    :param line: what ends the lines of its head.
    """
    stated = len(body) if length is None else length
    lines = [f"{version} {status}", *headers]
    if stated >= 0:
        lines.append(f"Content-Length: {stated}")
    return (line.join(lines) + line * 2).encode("latin-1") + body


def right(asked: Asked, *headers: str, content: bytes | None = None, **more: Any) -> bytes:
    """Return the answer of a server that does all as it should."""
    content = asked.content if content is None else content
    if asked.range is None or asked.range[0] >= len(content):
        return answer(content, 'ETag: "e"', "Accept-Ranges: bytes", *headers, **more)
    start, end = asked.range
    return answer(
        content[start:end],
        'ETag: "e"',
        f"Content-Range: bytes {start}-{min(end, len(content)) - 1}/{len(content)}",
        *headers,
        status="206 Partial Content",
        **more,
    )
