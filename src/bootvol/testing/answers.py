"""HTTP requests and raw answers, for servers whose every byte the test controls."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from typing import Final, TypeAlias, TypedDict, Unpack

import attrs

_RANGE: Final = re.compile(r"bytes=(\d+)-(\d*)")
#: Stands for an answer without a stated length.
NO_LENGTH: Final = -1


@attrs.frozen
class Asked:
    """A request.

    :ivar method: HTTP method, such as GET.
    :ivar path: path as received.
    :ivar headers: headers by lower-case name.
    :ivar content: bytes of the image that every habit serves.
    :ivar times: number of requests for this path so far, including this one.
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
        """The first requested byte and the one after the last; None for the whole content."""
        found = _RANGE.fullmatch(self.headers.get("range", ""))
        if found is None:
            return None
        end = int(found[2]) + 1 if found[2] else len(self.content)
        return int(found[1]), min(end, len(self.content))


#: Returns the bytes of the answer to a request.
Habit: TypeAlias = Callable[[Asked], bytes]


class Form(TypedDict, total=False):
    """The form of an answer: see :func:`answer`."""

    version: str
    length: int | None
    line: str


def answer(
    body: bytes,
    *headers: str,
    status: str = "200 OK",
    version: str = "HTTP/1.1",
    length: int | None = None,
    line: str = "\r\n",
) -> bytes:
    """Return an answer in bytes.

    :param length: the stated length; the default is the body's length, and a negative value omits
        the header.
    :param line: line ending of the head.
    """
    stated = len(body) if length is None else length
    lines = [f"{version} {status}", *headers]
    if stated >= 0:
        lines.append(f"Content-Length: {stated}")
    return (line.join(lines) + line * 2).encode("latin-1") + body


def right(
    asked: Asked,
    *headers: str,
    content: bytes | None = None,
    status: str = "200 OK",
    **more: Unpack[Form],
) -> bytes:
    """Return the answer of a correct server.

    :param status: the status for the whole content.
    """
    content = asked.content if content is None else content
    if asked.range is None or asked.range[0] >= len(content):
        return answer(content, 'ETag: "e"', "Accept-Ranges: bytes", *headers, status=status, **more)
    start, end = asked.range
    return answer(
        content[start:end],
        'ETag: "e"',
        f"Content-Range: bytes {start}-{min(end, len(content)) - 1}/{len(content)}",
        *headers,
        status="206 Partial Content",
        **more,
    )


def gzipped(content: bytes) -> bytes:
    """Return the content compressed.  The result does not depend on the time."""
    return gzip.compress(content, 1, mtime=0)
