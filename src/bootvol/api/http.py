"""What every dialect of the API needs of HTTP: bounded requests, JSON, and calls that end.

A handler's work is not cut off when its client leaves: Klein would cancel it half way.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from http import HTTPStatus
from math import ceil
from typing import Any, Final
from urllib.parse import unquote
from uuid import uuid4

import attrs
import orjson
from klein import Klein
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.iweb import IRequest
from twisted.web.resource import Resource
from twisted.web.server import Request
from werkzeug.exceptions import HTTPException
from werkzeug.exceptions import MethodNotAllowed as WrongMethod

from bootvol.errors import (
    BootvolError,
    DatabaseUnavailable,
    IdentityUnavailable,
    InvalidRequest,
    MalformedBody,
    MalformedUrl,
    MethodNotAllowed,
    NotFound,
    RateLimited,
    ServiceShort,
    TooManyCalls,
    TooManyLogins,
    Unauthorized,
    UnsupportedContentType,
)
from bootvol.shortage import short_of

#: The most levels of objects and lists in a body; no call needs a third of that.
DEEPEST: Final = 32
_JSON: Final = b"application/json; charset=UTF-8"
#: The longest Host, in bytes: a name (RFC 1035, section 2.3.4), a colon, and a port.
_LONGEST_HOST: Final = 255 + 6
#: The most parameters of a query: each is held against all of a list.
MOST_PARAMETERS: Final = 100
#: The most of a path that the log shows.
_SHOWN: Final = 200
_REQUEST_ID: Final = b"X-Compute-Request-Id"

_log = Logger()

#: What passes by itself, after a while that the error knows.
_Passing = (
    RateLimited
    | TooManyLogins
    | TooManyCalls
    | IdentityUnavailable
    | DatabaseUnavailable
    | ServiceShort
)

#: Turns an error into the object that a dialect shows.
Fault = Callable[[BootvolError], object]


@attrs.frozen
class Reply:
    """What a handler answers.

    :ivar body: becomes JSON; bytes are that already, and None is an empty body.
    """

    body: object = None
    status: int = 200


def write(request: IRequest, reply: Reply) -> bytes:
    """Set the reply's status and headers on ``request``, and return its body."""
    request.setResponseCode(reply.status)
    if reply.body is None:
        return b""
    request.setHeader(b"Content-Type", _JSON)
    return reply.body if isinstance(reply.body, bytes) else orjson.dumps(reply.body)


def read_json(request: IRequest) -> Any:
    """Return the request's body.

    :raises UnsupportedContentType: it is stated to be something else than JSON.
    :raises MalformedBody: it is not JSON.
    :raises InvalidRequest: the body is nested too deeply, or has text that no database keeps.
    """
    content_type = (request.getHeader(b"content-type") or b"application/json").split(b";")[0]
    if content_type.strip().lower() != b"application/json":
        raise UnsupportedContentType
    request.content.seek(0)
    try:
        body = orjson.loads(request.content.read())
    except orjson.JSONDecodeError as error:
        raise MalformedBody from error
    _check(body)
    return body


def _check(body: object) -> None:
    """Refuse what no call takes, before code that recurses gets the body.

    :raises InvalidRequest: the body is nested too deeply, or a text in it has a zero character.
    """
    level = [body]
    for _ in range(DEEPEST + 1):
        below: list[object] = []
        for each in level:
            if isinstance(each, str) and "\0" in each:
                raise InvalidRequest("Invalid input received: text must not hold a zero character")
            if isinstance(each, dict):
                below += [*each, *each.values()]
            elif isinstance(each, list):
                below += each
        level = below
    if level:
        raise InvalidRequest("Invalid input received: the body is nested too deeply")


def token(request: IRequest, header: bytes = b"X-Auth-Token") -> str:
    """Return a token that a request carries.

    :raises Unauthorized: it carries none.
    """
    found: bytes | None = request.getHeader(header)
    if not found:
        raise Unauthorized
    return found.decode("utf-8", "surrogateescape")


def query(request: IRequest) -> str:
    """Return the text behind a request's path, decoded; empty where there is none."""
    return unquote(request.uri.decode("ascii", "replace").partition("?")[2])


def answer(request: IRequest, call: Coroutine[Any, Any, Reply]) -> Deferred[bytes]:
    """Answer with what ``call`` returns; it runs to its end, even if the client leaves."""
    running = to_the_end(Deferred.fromCoroutine(call))
    return running.addCallback(lambda reply: write(request, reply))


def told(request: IRequest, failure: Failure, fault: Fault) -> bytes:
    """Set status and headers for what a handler raised, and return the fault that tells of it."""
    error = _known(request, failure)
    if isinstance(error, _Passing):
        request.setHeader(b"Retry-After", _retry_after(error))
    known = getattr(request, "tenant", None)
    if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR and (
        known is None or isinstance(error, TooManyCalls)
    ):
        # A flood has no lines but those of the access log, which has few for strangers.
        asked: Any = request
        asked.reason = f" ({error.code}: {error.message})"
    elif error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        _log.warn(
            "{request_id} {method} {path} (tenant {tenant}): {status} {code}: {message}{what}",
            request_id=getattr(request, "request_id", "a request"),
            method=printable(request.method),
            # What follows the path may be a secret, and paths have the tenant in them.
            path=printable(request.path),
            tenant=known,
            status=error.status,
            code=error.code,
            message=error.message,
            what=f" The daemon is short of {what}." if (what := short_of(failure.value)) else "",
        )
    return write(request, Reply(fault(error), error.status))


def _retry_after(error: _Passing) -> bytes:
    return str(ceil(error.retry_after)).encode("ascii")


def printable(sent: bytes) -> str:
    """Return what a client sent so that it can do nothing to a terminal that shows it."""
    return repr(sent[:_SHOWN])[2:-1]


def route(
    app: Klein, method: str, path: str, call: Callable[..., Coroutine[Any, Any, Reply]]
) -> None:
    """Have an application answer at a path with what ``call`` returns.

    :param path: ``<name>`` in it stands for a segment, which ``call`` gets by that name.
    :param call: its first parameter is the request.
    """

    @app.route(path, methods=[method], endpoint=f"{method} {path}")
    def answered(request: IRequest, **segments: str) -> Deferred[bytes]:
        return answer(request, call(request, **segments))


def tell_errors(app: Klein, fault: Fault) -> None:
    """Have an application answer with the fault that belongs to what a handler raised."""

    @app.handle_errors(Exception)
    def failed(request: IRequest, failure: Failure) -> bytes:
        return told(request, failure, fault)


def _known(request: IRequest, failure: Failure) -> BootvolError:
    error = failure.value
    if isinstance(error, BootvolError):
        return error
    if isinstance(error, WrongMethod):
        request.setHeader(b"Allow", ", ".join(error.valid_methods or ()).encode("ascii"))
        return MethodNotAllowed()
    if isinstance(error, HTTPException):
        return NotFound()
    if short_of(error):
        return ServiceShort()
    _log.failure(
        "{request_id} failed", failure, request_id=getattr(request, "request_id", "a request")
    )
    return BootvolError()


def to_the_end(call: Deferred[Reply]) -> Deferred[Reply]:
    """Return a Deferred like ``call`` that may be cancelled without cancelling ``call``."""
    outer: Deferred[Reply] = Deferred()

    def ended(result: Reply | Failure) -> None:
        if not outer.called:
            outer.callback(result)
        elif isinstance(result, Failure) and not result.check(BootvolError, CancelledError):
            _log.failure("a call failed after its client had left", failure=result)

    call.addBoth(ended)
    return outer


def new_id() -> str:
    """Return what no other request is called."""
    return f"req-{uuid4()}"


class ApiRequest(Request):
    """A request of the API."""

    #: See :func:`public_url`.
    public_url = ""
    #: The tenant of a valid token.
    tenant: str | None = None
    #: For the access log: why a request was not served, by no fault of what it asks.
    reason = ""

    def __init__(self, channel: HTTPChannel, *args: Any, **kwargs: Any) -> None:
        super().__init__(channel, *args, **kwargs)
        self.request_id = new_id()

    def process(self) -> None:
        """Answer.  For the path ``*`` Twisted has an answer of its own, with its version."""
        if self.path == b"*":
            self.path = self.uri = b"/*"
        super().process()


@attrs.frozen
class Dialect:
    """A part of the API.

    :ivar prefix: the segments that its paths begin with; the application does not see them.
    """

    prefix: tuple[bytes, ...]
    app: Klein
    fault: Fault


class ApiRoot(Resource):
    """Sees to what no handler can: paths that are no text, suffixes, what is not even read.

    :param dialects: the first whose prefix fits answers; the last one's fits always.
    :param public_url: where clients reach the API; None is wherever they say they do.
    :ivar dialects: those.
    """

    isLeaf = True

    def __init__(self, *dialects: Dialect, public_url: str | None = None) -> None:
        super().__init__()
        self.dialects = dialects
        self._resources = {each.prefix: each.app.resource() for each in dialects}
        self._public_url = public_url

    def render(self, request: ApiRequest) -> Any:
        """Answer, or hand the request on to the application."""
        request_id = getattr(request, "request_id", "")
        request.setHeader(_REQUEST_ID, request_id.encode("ascii"))
        # Twisted's own names a version, which tells a stranger what to try.
        request.setHeader(b"Server", b"bootvol")
        # Answers depend on X-Auth-Token, which no cache knows of (RFC 9111, section 3.5), and some
        # hold tokens and keys.
        request.setHeader(b"Cache-Control", b"no-store")
        path = request.postpath or []
        dialect = self._dialect(path)
        try:
            _check_host(request)
            _check_query(request)
            _take_suffix(request)
            request.public_url = self._public_url or _asked_at(request)
        except BootvolError as error:
            return write(request, Reply(dialect.fault(error), error.status))
        length = len(dialect.prefix)
        request.prepath = [*(request.prepath or []), *path[:length]]
        request.postpath = path[length:] or [b""]
        return self._resources[dialect.prefix].render(request)

    def refusal(self, path: bytes, error: BootvolError) -> bytes:
        """Return a whole HTTP answer, which ends its connection, to a request that was not read.

        :param path: as far as it came.
        """
        fault = self._dialect(path.lstrip(b"/").split(b"/")).fault(error)
        body = orjson.dumps(fault)
        status = f"{error.status} {HTTPStatus(error.status).phrase}".encode("ascii")
        head = [
            b"HTTP/1.1 " + status,
            b"Connection: close",
            _REQUEST_ID + b": " + new_id().encode("ascii"),
            b"Content-Type: " + _JSON,
            b"Content-Length: %d" % len(body),
        ]
        if isinstance(error, _Passing):
            head.append(b"Retry-After: " + _retry_after(error))
        return b"\r\n".join([*head, b"", body])

    def _dialect(self, path: Sequence[bytes]) -> Dialect:
        return next(
            each for each in self.dialects if each.prefix == tuple(path[: len(each.prefix)])
        )


def public_url(request: IRequest) -> str:
    """Return the URL of the API's root, as clients reach it, without a slash at its end."""
    return str(getattr(request, "public_url", ""))


def _asked_at(request: Request) -> str:
    scheme = "https" if request.isSecure() else "http"
    host = (request.getHeader(b"host") or b"localhost").decode("ascii", "replace")
    return f"{scheme}://{host}"


def _check_host(request: Request) -> None:
    """Refuse a Host that is no name: routing would stumble over it, and every link repeats it."""
    try:
        if len(request.getHeader(b"host") or b"") > _LONGEST_HOST:
            raise MalformedUrl("Malformed Host header")
        request.getRequestHostname().decode("ascii").encode("idna")
    except UnicodeError:
        raise MalformedUrl("Malformed Host header") from None


def _check_query(request: Request) -> None:
    """Refuse a query with more parameters than any call takes."""
    if sum(map(len, (request.args or {}).values())) > MOST_PARAMETERS:
        raise MalformedUrl("Too many parameters in the URL")


def _take_suffix(request: Request) -> None:
    """Drop the suffix that asks for JSON (reference, section 2.1): nothing else is spoken."""
    path = request.postpath or []
    try:
        b"/".join(path).decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedUrl from None
    # Routing would take `a//b` for `a/b`: another spelling of the same call.
    if not all(path[:-1]):
        raise MalformedUrl("Empty path segment")
    if path and path[-1].endswith(b".json"):
        path[-1] = path[-1].removesuffix(b".json")
