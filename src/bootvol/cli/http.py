"""HTTP with the standard library alone, so that the command line starts quickly."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterable
from contextlib import suppress
from email.message import Message
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any, NoReturn, cast
from urllib.parse import urlsplit

from bootvol.cli.failures import FAILED, NOT_ALLOWED, OF_STATUS, UNREACHABLE, CommandFailed
from bootvol.cli.text import shown
from bootvol.jsons import JsonObject

_TIMEOUT = 60.0
#: The largest answer, in bytes; 1,000 volumes with full metadata have 70 MB.
_LONGEST = 128 * 1024 * 1024


class Answer(JsonObject):
    """A JSON object of an answer.  Asking for a missing key ends the command.

    :raises CommandFailed: if the object lacks the key.
    """

    def __missing__(self, key: str) -> NoReturn:
        raise CommandFailed(
            f"the service's answer has no {key!r}: the URL leads to another service, or to"
            " another version"
        )


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirects: only the server named by the user gets the token."""

    def redirect_request(self, *_: object) -> None:
        return None


class _Connection(HTTPConnection):
    """A connection that reads an answer also if the server takes no more of the body."""

    def endheaders(self, message_body: Any = None, *, encode_chunked: bool = False) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):
            super().endheaders(message_body, encode_chunked=encode_chunked)


class _TlsConnection(_Connection, HTTPSConnection):
    """The same by TLS."""


class _Sending(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(_Connection, req)


class _SendingByTls(urllib.request.HTTPSHandler):
    def __init__(self, trusted: ssl.SSLContext) -> None:
        super().__init__(context=trusted)
        self._trusted = trusted

    def https_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(_TlsConnection, req, context=self._trusted)


def exchange(
    method: str,
    url: str,
    headers: dict[str, str],
    body: object = None,
    authorities: str = "",
    pieces: Iterable[bytes] | None = None,
) -> tuple[object, Message]:
    """Send a request; return the JSON of its answer, None if the answer is empty, and the headers.

    :param body: the value to send as JSON; None sends no body.
    :param pieces: the body as it is, in pieces.  Without a header ``Content-Length``, the body is
        sent in chunks.
    :param authorities: a PEM file of trusted certificate authorities; empty uses the system's.
    :raises CommandFailed: if the server refuses or does not answer.
    """
    if not url.startswith(("http://", "https://")):
        raise CommandFailed(f"{url!r} is not an http URL")
    sent: Iterable[bytes] | bytes | None = pieces
    if body is not None:
        sent = json.dumps(body).encode("utf-8")
    if not all(each.isascii() and each.isprintable() for each in headers.values()):
        # The library's message would repeat the token.
        raise CommandFailed(
            "the token contains a line end or another character that no token has: set"
            " BOOTVOL_TOKEN to the token alone",
            NOT_ALLOWED,
        )
    trusted = _trusted(authorities) if url.startswith("https://") else None
    headers = {**headers, "Accept": "application/json"}
    if body is not None:
        headers["Content-Type"] = "application/json"
    try:
        # The library takes pieces, too (documentation of urllib.request, "data").
        data = cast("bytes | None", sent)
        request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310
    except ValueError as error:
        raise CommandFailed(f"{shown(url)} is not a URL: {error}") from None
    try:
        handlers: list[urllib.request.BaseHandler] = [_Stay(), _Sending()]
        if trusted is not None:
            handlers.append(_SendingByTls(trusted))
        opener = urllib.request.build_opener(*handlers)
        with opener.open(request, timeout=_TIMEOUT) as response:
            content, answered = response.read(_LONGEST + 1), response.headers
    except urllib.error.HTTPError as error:
        code = OF_STATUS.get(error.code, FAILED)
        after = _seconds(error.headers.get("Retry-After", ""))
        raise CommandFailed(_told(error), code, error.code, after) from None
    except (OSError, ValueError, HTTPException) as error:
        fault = f"{url} cannot be reached{_through(url)}: {_why(error)}"
        raise CommandFailed(fault, UNREACHABLE) from None
    return _read(url, content), answered


def _through(url: str) -> str:
    """Return the words for the proxy that a request goes through; empty without a proxy."""
    scheme, host = urlsplit(url)[:2]
    if scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host):
        # The proxy's URL may hold a password.
        return f" through the proxy in {scheme}_proxy"
    return ""


def _why(error: Exception) -> str:
    """Return why a server cannot be reached."""
    cause = getattr(error, "reason", error)
    if isinstance(cause, ssl.SSLError) and cause.reason == "WRONG_VERSION_NUMBER":
        return "the server does not speak TLS there. The URL may have to begin with http://"
    return shown(str(cause).strip())


def _trusted(authorities: str) -> ssl.SSLContext:
    """Return the trust in some authorities.

    :raises CommandFailed: if the file cannot be read.
    """
    try:
        return ssl.create_default_context(cafile=authorities or None)
    except OSError as error:
        why = error.strerror or str(error)
        raise CommandFailed(f"OS_CACERT: {shown(authorities)}: {shown(why)}") from None


def _read(url: str, content: bytes) -> Answer | None:
    if not content:
        return None
    if len(content) > _LONGEST:
        raise CommandFailed(f"{url} answers with more than {_LONGEST} bytes")
    try:
        found = json.loads(content, object_hook=Answer)
    except (ValueError, RecursionError):
        # A proxy's page, say: that may pass.
        raise CommandFailed(f"{url} answers with invalid JSON", UNREACHABLE) from None
    if not isinstance(found, Answer):
        raise CommandFailed(f"{url} answers with JSON other than an object")
    return found


def _seconds(text: str) -> float:
    """Return the seconds of a Retry-After header; 0 if the header has another form."""
    return float(text[:6]) if text.isascii() and text.isdigit() else 0.0


def _told(error: urllib.error.HTTPError) -> str:
    """Return the message of a fault of any name."""
    if error.code == HTTPStatus.MULTIPLE_CHOICES:
        return (
            "the URL leads to a list of versions: an endpoint ends in a version and a project, as"
            " in http://HOST:PORT/v1.1/PROJECT"
        )
    try:
        (fault,) = json.loads(error.read(_LONGEST)).values()
        return f"{shown(str(fault['message']))} (HTTP {error.code})"
    except (OSError, HTTPException, ValueError, AttributeError, LookupError, TypeError):
        return f"the service answered HTTP {error.code}"
    except RecursionError:
        return f"the service answered HTTP {error.code}"
