"""The root of the API: refuses invalid requests, and passes the others to their mounts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import attrs
import orjson
from klein import Klein
from twisted.web.resource import Resource
from twisted.web.server import Request

from bootvol.api.http import (
    JSON,
    REQUEST_ID,
    ApiRequest,
    Faults,
    new_id,
    seconds_until_retry,
    without_slash,
    write,
)
from bootvol.api.targets import is_host
from bootvol.errors import BootvolError, MalformedRequest, MalformedUrl

#: Longest Host in bytes: a name (RFC 1035, section 2.3.4), a colon, and a port.
_LONGEST_HOST: Final = 255 + 6
#: Headers that a request has once at most.
_ONCE: Final = (b"Host", b"X-Auth-Token", b"X-Service-Token", b"X-Subject-Token")


@attrs.frozen
class StreamedPath:
    """An operation whose handler reads the body as the bytes arrive.

    :ivar segments: the segments of the path; None stands for any segment that is not empty.
    """

    method: bytes
    segments: tuple[bytes | None, ...]

    def fits(self, method: bytes, segments: Sequence[bytes]) -> bool:
        """Return whether a request is for the operation."""
        return (
            method == self.method
            and len(segments) == len(self.segments)
            and all(
                segment and wanted in (None, unquote_to_bytes(segment))
                for wanted, segment in zip(self.segments, segments, strict=True)
            )
        )


@attrs.frozen
class Mount:
    """An application, mounted at a prefix.

    :ivar prefix: the first segments of all paths of the application, removed for the application.
    :ivar streamed: the operations with streamed bodies.
    """

    prefix: tuple[bytes, ...]
    app: Klein
    faults: Faults
    streamed: Collection[StreamedPath] = ()


class ApiRoot(Resource):
    """The root resource: rejects undecodable paths, strips ``.json``, and dispatches to a mount.

    :param mounts: mounts in the order of dispatch; the prefix of the last fits all paths.
    :param public_url: the API's URL for clients; None for the Host of each request.
    :ivar mounts: the same mounts.
    """

    isLeaf = True

    def __init__(self, *mounts: Mount, public_url: str | None = None) -> None:
        super().__init__()
        self.mounts = mounts
        self._resources = {each.prefix: each.app.resource() for each in mounts}
        self._public_url = public_url

    def render(self, request: ApiRequest) -> Any:
        """Refuse an invalid request, or dispatch the request to its dialect's application."""
        request_id = getattr(request, "request_id", "")
        request.setHeader(REQUEST_ID, request_id.encode("ascii"))
        # Clients of today's OpenStack read this name.
        request.setHeader(b"X-Openstack-Request-Id", request_id.encode("ascii"))
        # Twisted's own value names a version, a hint for attackers.
        request.setHeader(b"Server", b"bootvol")
        # Answers depend on X-Auth-Token, unknown to caches (RFC 9111, section 3.5). Some answers
        # hold tokens and keys.
        request.setHeader(b"Cache-Control", b"no-store")
        path = request.postpath or []
        mount = self._mount(path)
        try:
            _check_once(request)
            _check_host(request)
            _take_host(request)
            _take_suffix(request)
            request.public_url = self._public_url or _url_of_host(request)
        except BootvolError as error:
            return write(request, mount.faults.reply(error))
        length = len(mount.prefix)
        request.prepath = [*(request.prepath or []), *path[:length]]
        request.postpath = [without_slash(each) for each in path[length:]] or [b""]
        return self._resources[mount.prefix].render(request)

    def streams(self, method: bytes, target: bytes) -> bool:
        """Return whether a request is for an operation that reads the body as the bytes arrive.

        :param target: the path, perhaps with a query.
        """
        segments = target.partition(b"?")[0].lstrip(b"/").split(b"/")
        mount = self._mount(segments)
        segments[-1] = segments[-1].removesuffix(b".json")
        own = segments[len(mount.prefix) :]
        return any(each.fits(method, own) for each in mount.streamed)

    def refusal(self, path: bytes, error: BootvolError) -> bytes:
        """Return a complete HTTP answer to an unread request, as the last of its connection.

        :param path: the path, as far as received.
        """
        reply = self._mount(path.lstrip(b"/").split(b"/")).faults.reply(error)
        body = orjson.dumps(reply.body)
        status = f"{reply.status} {HTTPStatus(reply.status).phrase}".encode("ascii")
        head = [
            b"HTTP/1.1 " + status,
            b"Connection: close",
            REQUEST_ID + b": " + new_id().encode("ascii"),
            b"Content-Type: " + JSON,
            b"Content-Length: %d" % len(body),
        ]
        if (retry_after := seconds_until_retry(error)) is not None:
            head.append(b"Retry-After: " + retry_after)
        return b"\r\n".join([*head, b"", body])

    def _mount(self, path: Sequence[bytes]) -> Mount:
        return next(each for each in self.mounts if each.prefix == tuple(path[: len(each.prefix)]))


def _url_of_host(request: Request) -> str:
    scheme = "https" if request.isSecure() else "http"
    host = (request.getHeader(b"host") or b"localhost").decode("ascii", "replace")
    return f"{scheme}://{host}"


def _check_once(request: Request) -> None:
    """Refuse a request that states its host or its caller twice: a proxy may believe the other."""
    for name in _ONCE:
        if len(request.requestHeaders.getRawHeaders(name, [])) > 1:
            raise MalformedRequest


def _check_host(request: Request) -> None:
    """Refuse an invalid or missing Host: every link repeats the Host, and proxies route by it.

    The rule is that of RFC 9112, section 3.2.  Only requests of HTTP/1.0 may have no Host.
    """
    host = request.getHeader(b"host")
    if host is None and request.clientproto != b"HTTP/1.0":
        raise MalformedUrl("Missing Host header")
    if len(host or b"") > _LONGEST_HOST or not is_host(host or b""):
        raise MalformedUrl("Malformed Host header")
    try:
        request.getRequestHostname().decode("ascii").encode("idna")
    except UnicodeError:
        raise MalformedUrl("Malformed Host header") from None


def _take_host(request: ApiRequest) -> None:
    """Replace the header Host by the host in the target, if any (RFC 9112, section 3.2.2)."""
    # Like `request_id`: requests of a plain Twisted site have none.
    if (host := getattr(request, "host_of_target", None)) is not None:
        request.requestHeaders.setRawHeaders(b"Host", [host])
        _check_host(request)


def _take_suffix(request: ApiRequest) -> None:
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
        # The suffix may also be a part of a name.
        request.suffix = ".json"
