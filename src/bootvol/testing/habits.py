"""A web server with unusual habits of real servers. curl copes with all of them.

The first part of the path names the habit, so one server serves every test::

    listening = reactor.listenTCP(0, Habits(content), interface="127.0.0.1")
    source.open(image of f"http://127.0.0.1:{listening.getHost().port}/folded/disk.raw")

Each value of :data:`HABITS` is a function that takes a request and returns the bytes of the answer.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable
from typing import Final, Unpack

import attrs
from backports import zstd
from twisted.internet.interfaces import IAddress, ITCPTransport
from twisted.internet.protocol import Factory, Protocol

from bootvol.testing.answers import NO_LENGTH, Asked, Form, Habit, answer, gzipped, right
from bootvol.testing.endings import BROKEN, ENDINGS

HABITS: Final[dict[str, Habit]] = {**ENDINGS}


def _habit(name: str) -> Callable[[Habit], Habit]:
    def register(function: Habit) -> Habit:
        HABITS[name] = function
        return function

    return register


def _always(name: str, make: Habit) -> None:
    HABITS[name] = make


# --- HEAD ----------------------------------------------------------------------------------------

for _code in (400, 401, 403, 404, 405, 406, 500, 501, 503):
    _always(
        f"head-{_code}",
        lambda asked, code=_code: (  # type: ignore[misc]
            answer(b"", status=f"{code} No") if asked.method == "HEAD" else right(asked)
        ),
    )
_always("head-closes", lambda asked: b"" if asked.method == "HEAD" else right(asked))
_always(
    "head-lies",
    lambda asked: answer(b"", length=2**40) if asked.method == "HEAD" else right(asked),
)

# --- Range ---------------------------------------------------------------------------------------

for _code in (400, 403, 404, 416, 429, 500, 501, 503):
    _always(
        f"range-{_code}",
        lambda asked, code=_code: (  # type: ignore[misc]
            answer(b"", status=f"{code} No") if asked.range else right(asked)
        ),
    )
_always("range-closes", lambda asked: b"" if asked.range else right(asked))
_always("range-ignored", lambda asked: answer(asked.content, 'ETag: "e"'))
_always("range-star", lambda asked: right(asked).replace(b"/%d\r" % len(asked.content), b"/*\r"))
_always("whole-as-206", lambda asked: right(attrs.evolve(asked, headers={"range": "bytes=0-"})))


_always("range-200", lambda asked: right(asked).replace(b"206 Partial Content", b"200 OK"))


@_habit("range-early")
def _range_early(asked: Asked) -> bytes:
    """Send parts that begin at the start of a block."""
    if asked.range is None:
        return right(asked)
    start = asked.range[0] // 4096 * 4096
    return right(attrs.evolve(asked, headers={"range": f"bytes={start}-"}))


@_habit("range-multipart")
def _range_multipart(asked: Asked) -> bytes:
    """Send a single part as multipart."""
    if asked.range is None:
        return right(asked)
    start, end = asked.range
    part = f"--b\r\nContent-Range: bytes {start}-{end - 1}/{len(asked.content)}\r\n\r\n".encode()
    body = part + asked.content[start:end] + b"\r\n--b--\r\n"
    kind = "Content-Type: multipart/byteranges; boundary=b"
    return answer(body, kind, 'ETag: "e"', status="206 Partial Content")


@_habit("range-unless-if")
def _range_unless_if(asked: Asked) -> bytes:
    """Send parts, but not for a conditional request."""
    if "if-range" in asked.headers:
        return answer(asked.content, 'ETag: "e"', "Accept-Ranges: bytes")
    return right(asked)


@_habit("mirrors")
def _mirrors(asked: Asked) -> bytes:
    """Act as another mirror each time, with another ETag."""
    etag = f'"{asked.times}"'
    if asked.headers.get("if-range", etag) != etag:
        return answer(asked.content, f"ETag: {etag}")
    return right(asked).replace(b'"e"', etag.encode())


_always("weak", lambda asked: right(asked).replace(b'"e"', b'W/"e"'))
_always("no-validator", lambda asked: right(asked).replace(b'ETag: "e"\r\n', b""))
_always("odd-etag", lambda asked: right(asked).replace(b'"e"', b"e"))
_always("empty-etag", lambda asked: right(asked).replace(b'"e"', b'""'))

# --- Content-Encoding ----------------------------------------------------------------------------


@_habit("names-its-gzip")
def _names_its_gzip(asked: Asked) -> bytes:
    """State the compression of a .gz file as Content-Encoding."""
    return right(asked, "Content-Encoding: x-gzip", content=gzipped(asked.content))


@_habit("encodes")
def _encodes(asked: Asked) -> bytes:
    """Compress the answer for an uncompressed file."""
    return answer(gzipped(asked.content), "Content-Encoding: gzip")


@_habit("encodes-zstd")
def _encodes_zstd(asked: Asked) -> bytes:
    """Compress the answer for an uncompressed file with zstd."""
    return answer(zstd.compress(asked.content, 1), "Content-Encoding: zstd")


@_habit("encodes-twice")
def _encodes_twice(asked: Asked) -> bytes:
    """Compress the answer twice."""
    return answer(gzipped(gzipped(asked.content)), "Content-Encoding: gzip, gzip")


@_habit("encodes-gz")
def _encodes_gz(asked: Asked) -> bytes:
    """Compress a .gz file once more."""
    once = gzipped(asked.content)
    return answer(gzipped(once), "Content-Encoding: gzip")


_always("encoded-not-at-all", lambda asked: right(asked, "Content-Encoding: gzip"))
_always("encoded-somehow", lambda asked: right(asked, "Content-Encoding: aws-chunked,binary"))

# --- redirects -----------------------------------------------------------------------------------


def _away(location: str, status: str = "302 Found", *more: str, **kinds: Unpack[Form]) -> Habit:
    """Return a habit that redirects each image once."""

    def habit(asked: Asked) -> bytes:
        if asked.name != "disk.raw":
            return right(asked)
        return answer(b"gone", f"Location: {location}", *more, status=status, **kinds)

    return habit


for _status in ("300 Choose", "301 Moved", "302 Found", "303 Other", "307 Still", "308 Gone"):
    _always(f"redirect-{_status[:3]}", _away("/right/there.raw", _status))
_always("redirect-relative", _away("there.raw"))
_always("redirect-up", _away("../right/./there.raw"))
_always("redirect-other-scheme-less", _away("//127.0.0.1:{port}/right/there.raw"))
_always("redirect-whole", _away("HTTP://127.0.0.1:{port}/right/there.raw"))
_always("redirect-fragment", _away("there.raw#there"))
_always("redirect-spaces", _away("th ere.raw?a b=c d"))
_always("redirect-utf-8", _away("th\u00e9re.raw".encode().decode("latin-1")))
_always("redirect-latin-1", _away("th\u00e9re.raw"))
_always("redirect-query", _away("/right/x?file=a/b:c+d&&e=="))
_always("redirect-without-length", _away("there.raw", length=NO_LENGTH))
_always("redirect-cookie", _away("there.raw", "302 Found", "Set-Cookie: a=b"))


@_habit("redirect-often")
def _redirect_often(asked: Asked) -> bytes:
    """Redirect 30 times."""
    times = int(asked.path.partition("?")[2] or 0)
    if times == 30:
        return right(asked)
    return answer(b"", f"Location: ?{times + 1}", "Connection: close", status="302 Found")


# --- heads ---------------------------------------------------------------------------------------

_always("right", right)
_always("line-feeds", lambda asked: right(asked, line="\n"))
_always("lower-case", lambda asked: _head(asked, bytes.lower))
_always("upper-case", lambda asked: _head(asked, bytes.upper))
_always("no-spaces", lambda asked: _head(asked, lambda head: head.replace(b": ", b":")))
_always("tabs", lambda asked: _head(asked, lambda head: head.replace(b": ", b":\t ")))
_always("folded", lambda asked: _head(asked, lambda head: head.replace(b"ETag: ", b"ETag:\r\n\t")))
_always(
    "length-list",
    lambda asked: answer(
        asked.content,
        f"Content-Length: {len(asked.content)}, {len(asked.content)}",
        length=NO_LENGTH,
    ),
)
_always("very-long-header", lambda asked: right(asked, f"Set-Cookie: {'x' * 50_000}"))
_always(
    "very-long-head", lambda asked: right(asked, *(f"Set-Cookie: {'x' * 8_000}" for _ in range(20)))
)
_always(
    "space-before-colon", lambda asked: _head(asked, lambda head: head.replace(b"ETag:", b"ETag :"))
)
_always("http-2-said", lambda asked: right(asked, version="HTTP/2"))
_always("te-nothing", lambda asked: right(asked, "Transfer-Encoding:"))
_always("te-identity", lambda asked: right(asked, "Transfer-Encoding: identity"))
_always("status-extra", lambda asked: right(asked, status="200  OK"))
_always("status-spaces", lambda asked: right(asked).replace(b"HTTP/1.1 ", b"HTTP/1.1   ", 1))
_always("206-of-all", lambda asked: answer(asked.content, status="206 Partial Content"))
_always("created", lambda asked: answer(asked.content, status="201 Created"))
_always("odd-success", lambda asked: answer(asked.content, status="299 Odd"))
_always("no-reason", lambda asked: right(asked, status="200") if not asked.range else right(asked))
_always("many-headers", lambda asked: right(asked, *(f"X-{each}: {each}" for each in range(900))))
_always("long-header", lambda asked: right(asked, f"Set-Cookie: {'x' * 15_000}"))
_always("odd-names", lambda asked: right(asked, "X y: a", ": b", "X(y)/z@[]: c"))
_always("other-bytes", lambda asked: right(asked, "Server: \xe9\xff"))
_always("continue", lambda asked: b"HTTP/1.1 100 Continue\r\n\r\n" + right(asked))
_always("hints", lambda asked: b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + right(asked))
_always("keeps-alive", lambda asked: right(asked, "Connection: keep-alive", "Keep-Alive: max=9"))
_always("not-authoritative", lambda asked: answer(asked.content, status="203 Transformed"))


def _head(asked: Asked, change: Callable[[bytes], bytes]) -> bytes:
    """Return a correct answer with changed headers.  The status line stays."""
    head, end, body = right(asked).partition(b"\r\n\r\n")
    first, line, rest = head.partition(b"\r\n")
    return first + line + change(rest) + end + body


@_habit("wants-user-agent")
def _wants_user_agent(asked: Asked) -> bytes:
    """Refuse clients without User-Agent or Accept."""
    if not asked.headers.get("user-agent") or not asked.headers.get("accept"):
        return answer(b"", status="403 Forbidden")
    return right(asked)


class Habits(Factory):
    """A server of one content with all :data:`HABITS`, and of its digests.

    :ivar asked: all requests.
    :ivar lists: whether each image has a SHA256SUMS beside it.
    :ivar broken_lists: whether all lists of digests exist, but break off.
    """

    noisy = False

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.asked: list[Asked] = []
        self.lists = self.broken_lists = False
        self.times: Counter[str] = Counter()

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """See :meth:`twisted.internet.interfaces.IProtocolFactory.buildProtocol`."""
        return _Connection(self)

    def answer(self, method: str, path: str, headers: dict[str, str], port: int) -> bytes:
        """Return the answer to a request."""
        self.times[path] += 1
        asked = Asked(method, path, headers, self.content, self.times[path])
        self.asked.append(asked)
        if "SUM" in asked.name and self.broken_lists:
            return answer(b"0" * 64, length=100)
        if asked.name == "SHA256SUMS" and self.lists:
            return answer(f"{hashlib.sha256(self.content).hexdigest()}  disk.raw\n".encode())
        habit = {**HABITS, **BROKEN}.get(path.split("/")[1])
        if habit is None or "SUM" in path.upper() or re.search(r"\.(sha\d+|md5)$", path, re.I):
            return answer(b"", status="404 Not Found")
        return habit(asked).replace(b"{port}", b"%d" % port)


class _Connection(Protocol):
    """A connection for one request, or for more if the answer announces keep-alive."""

    transport: ITCPTransport

    def __init__(self, server: Habits) -> None:
        self._server = server
        self._head = b""

    def dataReceived(self, data: bytes) -> None:
        """Collect a request, and answer it when its head is complete."""
        self._head += data
        head, end, _ = self._head.partition(b"\r\n\r\n")
        if not end:
            return
        self._head = b""
        first, *lines = head.decode("latin-1").split("\r\n")
        method, path, _version = first.split(" ")
        headers = {
            name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)
        }
        said = self._server.answer(method, path, headers, self.transport.getHost().port)
        head, end, _ = said.partition(b"\r\n\r\n")
        self.transport.write(head + end if method == "HEAD" else said)
        if b"\r\nConnection: keep-alive" not in said:
            self.transport.loseConnection()
