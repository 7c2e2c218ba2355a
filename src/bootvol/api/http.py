"""HTTP for all dialects of the API: bounded requests, JSON, and calls that run to their end.

If a client disconnects, the handler's work continues.  Klein would cancel the handler.
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

#: Maximum number of nested objects and lists in a body. No call needs a third of these levels.
DEEPEST: Final = 32
_JSON: Final = b"application/json; charset=UTF-8"
#: Longest Host in bytes: a name (RFC 1035, section 2.3.4), a colon, and a port.
_LONGEST_HOST: Final = 255 + 6
#: Maximum number of parameters in a query. Each parameter is compared with a whole list.
MOST_PARAMETERS: Final = 100
#: Maximum number of bytes of a path in the log.
_SHOWN: Final = 200
_REQUEST_ID: Final = b"X-Compute-Request-Id"

_log = Logger()

#: Temporary errors, which know the time until a retry.
_Passing = (
    RateLimited
    | TooManyLogins
    | TooManyCalls
    | IdentityUnavailable
    | DatabaseUnavailable
    | ServiceShort
)

#: Converts an error to a dialect's JSON object.
Fault = Callable[[BootvolError], object]


@attrs.frozen
class Reply:
    """The answer of a handler.

    :ivar body: a value that becomes JSON; bytes for finished JSON; None for an empty body.
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
    """Return the JSON body of a request.

    :raises UnsupportedContentType: if the request states a content type other than JSON.
    :raises MalformedBody: if the body is not JSON.
    :raises InvalidRequest: if the body is nested too deeply, or has text that no database stores.
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
    """Refuse invalid bodies before any recursive code processes the body.

    :raises InvalidRequest: if the body is nested too deeply, or if a text has a zero character.
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
    """Return a token from a request's headers.

    :raises Unauthorized: if the request has no such header.
    """
    found: bytes | None = request.getHeader(header)
    if not found:
        raise Unauthorized
    return found.decode("utf-8", "surrogateescape")


def query(request: IRequest) -> str:
    """Return a request's query, percent-decoded; empty if the request has none."""
    return unquote(request.uri.decode("ascii", "replace").partition("?")[2])


def answer(request: IRequest, call: Coroutine[Any, Any, Reply]) -> Deferred[bytes]:
    """Answer with the reply of ``call``, which runs to its end even if the client disconnects."""
    running = to_the_end(Deferred.fromCoroutine(call))
    return running.addCallback(lambda reply: write(request, reply))


def told(request: IRequest, failure: Failure, fault: Fault) -> bytes:
    """Set status and headers for a handler's exception, and return the fault as JSON."""
    error = _known(request, failure)
    if isinstance(error, _Passing):
        request.setHeader(b"Retry-After", _retry_after(error))
    known = getattr(request, "tenant", None)
    if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR and (
        known is None or isinstance(error, TooManyCalls)
    ):
        # For floods, write only the access log, which has few lines for strangers.
        asked: Any = request
        asked.reason = f" ({error.code}: {error.message})"
    elif error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        _log.warn(
            "{request_id} {method} {path} (tenant {tenant}): {status} {code}: {message}{what}",
            request_id=getattr(request, "request_id", "a request"),
            method=printable(request.method),
            # Log no query, because it may hold a secret. The path has the tenant in it.
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
    """Return a client's bytes as text that is harmless on a terminal."""
    return repr(sent[:_SHOWN])[2:-1]


def route(
    app: Klein, method: str, path: str, call: Callable[..., Coroutine[Any, Any, Reply]]
) -> None:
    """Add a route to an application; ``call`` answers the route's requests.

    :param path: the path; ``<name>`` stands for a segment, and becomes a parameter of ``call``.
    :param call: the handler; the first parameter is the request.
    """

    @app.route(path, methods=[method], endpoint=f"{method} {path}")
    def answered(request: IRequest, **segments: str) -> Deferred[bytes]:
        return answer(request, call(request, **segments))


def tell_errors(app: Klein, fault: Fault) -> None:
    """Add an error handler to an application, which answers exceptions with faults."""

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
    """Return a Deferred with the result of ``call``; its cancellation does not cancel ``call``."""
    outer: Deferred[Reply] = Deferred()

    def ended(result: Reply | Failure) -> None:
        if not outer.called:
            outer.callback(result)
        elif isinstance(result, Failure) and not result.check(BootvolError, CancelledError):
            _log.failure("a call failed after its client had left", failure=result)

    call.addBoth(ended)
    return outer


def new_id() -> str:
    """Return a unique id for a request."""
    return f"req-{uuid4()}"


class ApiRequest(Request):
    """A request of the API."""

    #: See :func:`public_url`.
    public_url = ""
    #: The tenant of the request's valid token.
    tenant: str | None = None
    #: For the access log: the reason for a failure without a fault in the request.
    reason = ""

    def __init__(self, channel: HTTPChannel, *args: Any, **kwargs: Any) -> None:
        super().__init__(channel, *args, **kwargs)
        self.request_id = new_id()

    def process(self) -> None:
        """Answer the request; avoid Twisted's own answer to the path ``*``, with its version."""
        if self.path == b"*":
            self.path = self.uri = b"/*"
        super().process()


@attrs.frozen
class Dialect:
    """A dialect of the API.

    :ivar prefix: the first segments of all paths of the dialect, removed for the application.
    """

    prefix: tuple[bytes, ...]
    app: Klein
    fault: Fault


class ApiRoot(Resource):
    """The root resource: rejects undecodable paths, strips ``.json``, and dispatches to a dialect.

    :param dialects: dialects in the order of dispatch; the prefix of the last fits all paths.
    :param public_url: the API's URL for clients; None for the Host of each request.
    :ivar dialects: the same dialects.
    """

    isLeaf = True

    def __init__(self, *dialects: Dialect, public_url: str | None = None) -> None:
        super().__init__()
        self.dialects = dialects
        self._resources = {each.prefix: each.app.resource() for each in dialects}
        self._public_url = public_url

    def render(self, request: ApiRequest) -> Any:
        """Refuse an invalid request, or dispatch the request to its dialect's application."""
        request_id = getattr(request, "request_id", "")
        request.setHeader(_REQUEST_ID, request_id.encode("ascii"))
        # Twisted's own value names a version, a hint for attackers.
        request.setHeader(b"Server", b"bootvol")
        # Answers depend on X-Auth-Token, unknown to caches (RFC 9111, section 3.5). Some answers
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
        """Return a complete HTTP answer to an unread request, as the last of its connection.

        :param path: the path, as far as received.
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
    """Return the URL of the API's root for clients, without a slash at the end."""
    return str(getattr(request, "public_url", ""))


def _asked_at(request: Request) -> str:
    scheme = "https" if request.isSecure() else "http"
    host = (request.getHeader(b"host") or b"localhost").decode("ascii", "replace")
    return f"{scheme}://{host}"


def _check_host(request: Request) -> None:
    """Refuse an invalid Host: routing would fail, and every link repeats the Host."""
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
    """Strip the suffix for JSON (specification, section 2.1), the only supported format."""
    path = request.postpath or []
    try:
        b"/".join(path).decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedUrl from None
    # Routing would treat `a//b` as `a/b`, another spelling of the same call.
    if not all(path[:-1]):
        raise MalformedUrl("Empty path segment")
    if path and path[-1].endswith(b".json"):
        path[-1] = path[-1].removesuffix(b".json")
