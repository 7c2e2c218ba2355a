"""HTTP for all dialects of the API: bounded requests, JSON, and calls that run to their end.

If a client disconnects, the handler's work continues.  Klein would cancel the handler.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
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
from twisted.web.server import Request
from werkzeug.exceptions import HTTPException
from werkzeug.exceptions import MethodNotAllowed as WrongMethod

from bootvol.api import targets
from bootvol.api.statuses import status_of
from bootvol.api.uploads import BodyStream
from bootvol.errors import (
    BootvolError,
    DatabaseUnavailable,
    IdentityUnavailable,
    InvalidRequest,
    MalformedBody,
    MethodNotAllowed,
    NotFound,
    RateLimited,
    ServiceShort,
    TooManyCalls,
    TooManyLogins,
    Unauthorized,
    UnsupportedContentType,
    WrongMediaType,
)
from bootvol.jsons import JsonObject
from bootvol.shortage import short_of

#: Maximum number of nested objects and lists in a body. No call needs a third of these levels.
DEEPEST: Final = 32
#: Maximum number of values in the lists and objects of a body.  The largest useful body, a server
#: with 128 items of metadata and a disk for each device name, has about 500.
MOST_VALUES: Final = 1000
JSON: Final = b"application/json; charset=UTF-8"
#: Maximum number of bytes of a path in the log.
_SHOWN: Final = 200
REQUEST_ID: Final = b"X-Compute-Request-Id"

#: Beginnings of secrets in paths: a question mark within a segment, perhaps encoded several times;
#: and a token in the identity API of 2012, which has such paths.
_SECRET: Final = re.compile(rb"%(?:25)*3f|(?<=/tokens/).", re.IGNORECASE | re.DOTALL)

#: Stands for an encoded slash in a segment of a path, which is part of an id.  Routing would take a
#: slash for the segment's end.  No text has this noncharacter (Unicode Standard, section 23.7).
_SLASH: Final = "\ufdd0"

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


@attrs.frozen
class Reply:
    """The answer of a handler.

    :ivar body: a value that becomes JSON; bytes for finished JSON; None for an empty body.
    """

    body: object = None
    status: int = 200


@attrs.frozen
class Faults:
    """The form of a dialect's errors.

    :ivar body: converts an error and its HTTP status to the JSON object for the client.
    :ivar schema: returns the JSON schema of these objects by HTTP status.
    :ivar status: returns the HTTP status of an error.
    :ivar retry_after: returns the header ``Retry-After`` of an error; None for no header.
    :ivar name: distinguishes the form from others in the same OpenAPI document.
    """

    body: Callable[[BootvolError, int], object]
    schema: Callable[[int], JsonObject]
    status: Callable[[BootvolError], int] = status_of
    name: str = ""
    retry_after: Callable[[BootvolError], bytes | None] = lambda error: seconds_until_retry(error)

    def reply(self, error: BootvolError) -> Reply:
        """Return the reply that reports an error."""
        status = self.status(error)
        return Reply(self.body(error, status), status)


def write(request: IRequest, reply: Reply) -> bytes:
    """Set the reply's status and headers on ``request``, and return its body."""
    request.setResponseCode(reply.status)
    if reply.body is None:
        return b""
    request.setHeader(b"Content-Type", JSON)
    return reply.body if isinstance(reply.body, bytes) else orjson.dumps(reply.body)


def read_json(request: IRequest, media: str = "application/json") -> Any:
    """Return the JSON body of a request.

    :param media: the content type of the operation's body.
    :raises UnsupportedContentType: if the operation takes JSON, and the request states another
        content type.
    :raises WrongMediaType: if the operation takes another content type than the stated one.
    :raises MalformedBody: if the body is not JSON.
    :raises InvalidRequest: if the body has too many values, is nested too deeply, or has text that
        no database stores.
    """
    content_type = (request.getHeader(b"content-type") or b"application/json").split(b";")[0]
    if content_type.strip().lower() != media.encode("ascii"):
        raise UnsupportedContentType if media == "application/json" else WrongMediaType(media)
    request.content.seek(0)
    sent = request.content.read()
    _check_number(sent)
    try:
        body = orjson.loads(sent)
    except orjson.JSONDecodeError as error:
        raise MalformedBody from error
    _check(body)
    return body


def _check_number(sent: bytes) -> None:
    """Refuse a body with many values before any code makes or validates the values.

    Each list or object begins with a bracket, and each further value follows a comma.

    :raises InvalidRequest: if the body has more than :data:`MOST_VALUES` values.
    """
    # Without escaped quotes, the parts between quotes are alternately outside and inside of texts.
    # Each value has two texts at most: its key and itself.
    most = 4 * MOST_VALUES + 1
    parts = sent.replace(rb"\\", b"").replace(rb"\"", b"").split(b'"', most)
    outside = b"".join(parts[::2])
    if len(parts) > most or sum(map(outside.count, (b"[", b"{", b","))) > MOST_VALUES:
        raise InvalidRequest("Invalid input received: the body has too many values")


def _check(body: object) -> None:
    """Refuse invalid bodies before any recursive code processes the body.

    :raises InvalidRequest: if the body is nested too deeply, or if a text has a zero character.
    """
    level = [body]
    for _ in range(DEEPEST + 1):
        below: list[object] = []
        for each in level:
            if isinstance(each, str) and "\0" in each:
                raise InvalidRequest(
                    "Invalid input received: text must not contain a null character"
                )
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


def answer(request: IRequest, call: Coroutine[Deferred[object], object, Reply]) -> Deferred[bytes]:
    """Answer with the reply of ``call``, which runs to its end even if the client disconnects."""
    running = to_the_end(Deferred.fromCoroutine(call))
    return running.addCallback(lambda reply: write(request, reply))


def render_error(request: IRequest, failure: Failure, faults: Faults) -> bytes:
    """Set status and headers for a handler's exception, and return the fault as JSON."""
    error = _known(request, failure)
    reply = faults.reply(error)
    if (retry_after := faults.retry_after(error)) is not None:
        request.setHeader(b"Retry-After", retry_after)
    known = getattr(request, "tenant", None)
    if reply.status >= HTTPStatus.INTERNAL_SERVER_ERROR and (
        known is None or isinstance(error, TooManyCalls | DatabaseUnavailable)
    ):
        # For floods, write only the access log, which has few lines for strangers.  The database
        # logs the begin and the end of its outage.
        logged: Any = request
        logged.reason = f" ({error.code}: {error.message})"
    elif reply.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        _log.warn(
            "{request_id} {method} {path} (tenant {tenant}): {status} {code}: {message}{what}",
            request_id=getattr(request, "request_id", "a request"),
            method=printable(request.method),
            # Log no query, because it may hold a secret. The path has the tenant in it.
            path=path_for_log(request),
            tenant=known,
            status=reply.status,
            code=error.code,
            message=error.message,
            what=f" The daemon is short of {what}." if (what := short_of(failure.value)) else "",
        )
    return write(request, reply)


def seconds_until_retry(error: BootvolError) -> bytes | None:
    """Return the header ``Retry-After`` of an error; None if the error is not temporary."""
    return str(ceil(error.retry_after)).encode("ascii") if isinstance(error, _Passing) else None


def printable(sent: bytes) -> str:
    """Return a client's bytes as text that is harmless on a terminal."""
    return repr(sent[:_SHOWN])[2:-1]


def path_for_log(request: IRequest) -> str:
    """Return the path of a request for the log, up to a secret in the path.

    The id of an image may be a URL, and its query a signature: see
    :func:`bootvol.errors.without_query`.  Some clients ask for a token by its path.
    """
    path: bytes = request.path
    secret = _SECRET.search(path)
    return printable(path) if secret is None else f"{printable(path[: secret.start()])}…"


def without_slash(segment: bytes) -> bytes:
    """Return a segment of a path in a form that routing does not split: see :func:`with_slash`."""
    return segment.replace(b"/", _SLASH.encode("utf-8"))


def with_slash(segment: str) -> str:
    """Return a segment that :func:`without_slash` changed, as the client wrote it."""
    return segment.replace(_SLASH, "/")


def add_error_handler(app: Klein, faults: Faults) -> None:
    """Make an application answer exceptions with faults."""

    @app.handle_errors(Exception)
    def failed(request: IRequest, failure: Failure) -> bytes:
        return render_error(request, failure, faults)


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
    #: The end of the path that was taken as a statement of the format; "" for none.
    suffix = ""
    #: The tenant of the request's valid token.
    tenant: str | None = None
    #: The host in the target, which counts instead of the header Host; None for none.
    host_of_target: bytes | None = None
    #: The body of a request for a streamed operation.
    stream: BodyStream | None = None
    #: For the access log: the reason for a failure without a fault in the request.
    reason = ""

    def __init__(self, channel: HTTPChannel, *args: object, **kwargs: object) -> None:
        super().__init__(channel, *args, **kwargs)
        self.request_id = new_id()

    def parseCookies(self) -> None:  # noqa: N802 (Twisted's name)
        """Do nothing: no call reads cookies.  Twisted takes 10 ms for 16,000 empty ones."""

    def requestReceived(  # noqa: N802 (Twisted's name)
        self, command: bytes, path: bytes, version: bytes
    ) -> None:
        """Take a request; separate the host in the target from the path."""
        path, self.host_of_target = targets.split(path)
        super().requestReceived(command, path, version)

    def process(self) -> None:
        """Answer the request; avoid Twisted's own answer to the path ``*``, with its version."""
        if self.path == b"*":
            self.path = self.uri = b"/*"
        super().process()


def public_url(request: IRequest) -> str:
    """Return the URL of the API's root for clients, without a slash at the end."""
    return str(getattr(request, "public_url", ""))
