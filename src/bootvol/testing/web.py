"""A deliberately bad web server.  Each path fails in its own way, and some paths recover.

The last part of the path names the fault, so one server serves every test::

    with serve(BadWeb(content)) as server:      # any Twisted site
        source.open(image of f"{server.url}drop")
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

_RANGE: Final = re.compile(rb"bytes=(\d+)-")
#: The Range of a source that only probes the image.
_FIRST_BYTE: Final = b"bytes=0-0"
#: The page that a proxy sends in place of the content.
_PAGE: Final = b"<!DOCTYPE html><title>Log in</title>"
#: Names of lists of digests.  Only the lists in ``BadWeb.lists`` exist.
_LIST: Final = re.compile(r"sums|sha\d|md5|checksum", re.IGNORECASE)


class BadWeb(Resource):
    """A server of one content, with a fault for each path.

    =================  ==========================================================================
    ``good``           ranges, an ETag, everything right
    ``slow``           the same, at a bounded rate
    ``drip``           the same, at 20 bytes a second
    ``no-ranges``      ignores Range
    ``no-validator``   neither ETag nor Last-Modified
    ``drop``           closes the connection after a quarter of the content, each time
    ``drop-once``      the same, the first time only, and ignores Range
    ``moody``          ignores Range, and closes the connection ever sooner
    ``changed``        breaks off once; then another content, with another ETag
    ``wrong-range``    breaks off once; then answers a Range with a later one
    ``refuses-rest``   breaks off once, then answers 403 twice; then good
    ``lacks-rest``     the same with 404
    ``portal``         breaks off once, then sends a page once; then good
    ``portal-always``  breaks off once, then sends only a page
    ``no-tag-portal``  as ``portal``, without a validator
    ``less``           breaks off once, then states less of the same image once; then good
    ``less-at-once``   the same, and sends all of the shorter image
    ``stall``          sends a part, then nothing; good the next time
    ``vast``           states a length larger than any integer of a database
    ``short``          states more than it sends, each time
    ``unfinished``     breaks off a chunked body, each time
    ``busy``           503 with Retry-After, twice; then good
    ``always-busy``    503
    ``forbidden``      403
    ``missing``        404
    ``loop``           redirects to itself
    ``elsewhere``      redirects to another origin
    ``nowhere``        redirects to a URL outside the web
    ``page``           an HTML page
    =================  ==========================================================================

    :param content: bytes of the image.
    :param clock: the reactor, for delayed answers.
    :param rate: rate of ``slow`` in bytes per second.
    :ivar lists: other files by the last part of their path: lists of digests, say.
    :ivar also: further paths: the name of a path above, by the new last part of a path.
    :ivar pause: Retry-After of ``busy`` in seconds.
    :ivar requests: the Range of each GET, by the last part of its path; None without a Range.  A
        GET of only the first byte is answered like HEAD and not counted.
    """

    isLeaf = True

    def __init__(self, content: bytes, clock: IReactorTime, rate: int = 8 * 1024 * 1024) -> None:
        super().__init__()
        self.content = content
        self.lists: dict[str, bytes] = {}
        self.also: dict[str, str] = {}
        self.pause = 1
        self.requests: dict[str, list[bytes | None]] = defaultdict(list)
        self._clock = clock
        self._rate = rate
        self._etag = b'"first"'

    def render_HEAD(self, request: Request) -> bytes:
        """Promise the image, or fail like a GET that fails at once."""
        name = _name(request)
        if name in {"missing", "forbidden"}:
            request.setResponseCode(404 if name == "missing" else 403)
        else:
            request.setHeader(b"content-length", str(len(self.content)).encode())
        return b""

    def render_GET(self, request: Request) -> bytes | int:
        """Answer as named by the path."""
        name = _name(request)
        if name in self.lists:
            return self.lists[name]
        if _LIST.search(name) and name not in self.also:
            return self._code(request, 404)
        if request.getHeader(b"range") == _FIRST_BYTE:
            return self._promise_first(request)
        self.requests[name].append(request.getHeader(b"range"))
        ways: dict[str, Callable[[Request], bytes | int]] = {
            "no-ranges": lambda _: self._send(request, ranges=False),
            "no-validator": lambda _: self._send(request, validator=False),
            "drop": lambda _: self._send(request, stop=len(self.content) // 4),
            "drop-once": self._drop_once,
            "moody": self._moody,
            "changed": self._changed,
            "wrong-range": self._wrong_range,
            "refuses-rest": lambda _: self._rest(request, lambda: self._code(request, 403), 2),
            "lacks-rest": lambda _: self._rest(request, lambda: self._code(request, 404), 2),
            "portal": lambda _: self._rest(request, lambda: _PAGE),
            "portal-always": lambda _: self._rest(request, lambda: _PAGE, 10**9),
            "no-tag-portal": lambda _: self._rest(request, lambda: _PAGE, validator=False),
            "less": lambda _: self._rest(request, lambda: self._less(request)),
            "less-at-once": lambda _: self._rest(request, lambda: self._less(request, False)),
            "stall": self._stall,
            "vast": lambda _: self._promise(request, 2**63),
            "short": lambda _: self._promise(request, 2 * len(self.content)),
            "unfinished": self._unfinished,
            "busy": lambda _: self._busy(request, 2),
            "always-busy": lambda _: self._busy(request, 10**9),
            "forbidden": lambda _: self._code(request, 403),
            "missing": lambda _: self._code(request, 404),
            "loop": lambda _: self._redirect(request, request.uri),
            "elsewhere": lambda _: self._redirect(request, b"http://127.0.0.1:1/images/good"),
            "nowhere": lambda _: self._redirect(request, b"mailto:nobody"),
            "page": lambda _: _PAGE,
            "slow": lambda _: self._slowly(request, self._rate // 20),
            "drip": lambda _: self._slowly(request, 1),
        }
        return ways.get(self.also.get(name, name), self._send)(request)

    def _promise_first(self, request: Request) -> bytes:
        self.render_HEAD(request)
        if request.code != 200:
            return b""
        request.setResponseCode(206)
        request.setHeader(b"content-range", b"bytes 0-0/%d" % len(self.content))
        request.setHeader(b"content-length", b"1")
        return self.content[:1]

    def replace(self) -> None:
        """Replace the image with another one."""
        self._etag = b'"second"'
        self.content = bytes(255 - byte for byte in self.content[:65536]) + self.content[65536:]

    # --- the ways --------------------------------------------------------------------------------

    def _send(
        self,
        request: Request,
        *,
        ranges: bool = True,
        validator: bool = True,
        stop: int | None = None,
    ) -> int:
        """Send the content or the requested part, at most ``stop`` bytes."""
        body = self._begin(request, ranges, validator)
        if stop is None or stop >= len(body):
            request.write(body)
            request.finish()
        else:
            request.write(body[:stop])
            request.channel.loseConnection()
        return NOT_DONE_YET

    def _begin(self, request: Request, ranges: bool = True, validator: bool = True) -> bytes:
        """Set the head of the answer, and return the matching body."""
        start = 0
        if validator:
            request.setHeader(b"etag", self._etag)
        asked = _RANGE.fullmatch(request.getHeader(b"range") or b"")
        same = request.getHeader(b"if-range") in (None, self._etag)
        if ranges and asked is not None and same and int(asked[1]) < len(self.content):
            start = int(asked[1])
            whole = len(self.content)
            request.setResponseCode(206)
            request.setHeader(b"content-range", b"bytes %d-%d/%d" % (start, whole - 1, whole))
        request.setHeader(b"content-length", str(len(self.content) - start).encode())
        return self.content[start:]

    def _first(self, request: Request) -> bool:
        return len(self.requests[_name(request)]) == 1

    def _drop_once(self, request: Request) -> int:
        stop = len(self.content) // 2 if self._first(request) else None
        return self._send(request, ranges=False, stop=stop)

    def _moody(self, request: Request) -> int:
        times = len(self.requests[_name(request)])
        return self._send(request, ranges=False, stop=len(self.content) * 9 // (10 + times))

    def _changed(self, request: Request) -> int:
        if self._first(request):
            return self._send(request, stop=len(self.content) // 2)
        self.replace()
        return self._send(request)

    def _wrong_range(self, request: Request) -> int:
        if self._first(request) or request.getHeader(b"range") is None:
            return self._send(
                request, stop=len(self.content) // 2 if self._first(request) else None
            )
        part = self._begin(request)[1:]
        whole = len(self.content)
        span = b"bytes %d-%d/%d" % (whole - len(part), whole - 1, whole)
        request.setHeader(b"content-range", span)
        request.setHeader(b"content-length", str(len(part)).encode())
        request.write(part)
        request.finish()
        return NOT_DONE_YET

    def _rest(
        self,
        request: Request,
        odd: Callable[[], bytes | int],
        times: int = 1,
        *,
        validator: bool = True,
    ) -> bytes | int:
        """Break off half way at first, then answer oddly ``times`` times, then be good."""
        if self._first(request):
            return self._send(request, validator=validator, stop=len(self.content) // 2)
        if len(self.requests[_name(request)]) <= 1 + times:
            return odd()
        return self._send(request, validator=validator)

    def _less(self, request: Request, ranges: bool = True) -> int:
        """Send the requested part of a shorter image, with the validator of the whole one."""
        whole, self.content = self.content, self.content[: len(self.content) * 3 // 4]
        try:
            return self._send(request, ranges=ranges)
        finally:
            self.content = whole

    def _stall(self, request: Request) -> int:
        if not self._first(request):
            return self._send(request)
        request.write(self._begin(request)[: len(self.content) // 3])
        return NOT_DONE_YET

    def _promise(self, request: Request, length: int) -> int:
        body = self._begin(request, ranges=False, validator=False)
        request.setHeader(b"content-length", str(length).encode())
        request.write(body)
        request.channel.loseConnection()
        return NOT_DONE_YET

    def _unfinished(self, request: Request) -> int:
        request.write(self.content)
        request.channel.loseConnection()
        return NOT_DONE_YET

    def _busy(self, request: Request, times: int) -> bytes | int:
        if len(self.requests[_name(request)]) > times:
            return self._send(request)
        request.setHeader(b"retry-after", str(self.pause).encode())
        return self._code(request, 503)

    def _code(self, request: Request, code: int) -> bytes:
        request.setResponseCode(code)
        return b""

    def _redirect(self, request: Request, target: bytes) -> bytes:
        request.setHeader(b"location", target)
        return self._code(request, 302)

    def _slowly(self, request: Request, step: int) -> int:
        body = memoryview(self._begin(request))
        sent = 0

        def more() -> None:
            nonlocal sent
            request.write(bytes(body[sent : sent + step]))
            sent += step
            if sent >= len(body):
                sending.stop()
                request.finish()

        sending = LoopingCall(more)
        sending.clock = self._clock
        gone = request.notifyFinish()
        gone.addErrback(lambda _failure: sending.stop() if sending.running else None)
        sending.start(1 / 20)
        return NOT_DONE_YET


def _name(request: Request) -> str:
    return request.path.rsplit(b"/")[-1].decode("ascii", "replace")
