"""A client of the HTTP API, with nothing but the standard library: it starts in no time."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import quote, unquote

from bootvol.cli.failures import FAILED, OF_STATUS, UNREACHABLE, CommandFailed

_TIMEOUT = 60.0


class Client:
    """Speaks to one tenant's part of a service.

    :param endpoint: the base URI, ``http://HOST:PORT/v1.1/TENANT``.
    :param token: goes into ``X-Auth-Token``.
    """

    def __init__(self, endpoint: str, token: str) -> None:
        self._endpoint = endpoint.rstrip("/")
        self._token = token

    @property
    def tenant(self) -> str:
        """The tenant that it speaks for."""
        return unquote(self._endpoint.rpartition("/")[2])

    def get(self, path: str) -> Any:
        """Return the JSON at ``path``, relative to the base URI.

        :raises CommandFailed: the service says no, or nothing.
        """
        return self._call("GET", path)

    def post(self, path: str, body: object) -> Any:
        """Send JSON to ``path``; return the JSON of the answer.

        :raises CommandFailed: the service says no, or nothing.
        """
        return self._call("POST", path, json.dumps(body).encode("utf-8"))

    def put(self, path: str, body: object) -> Any:
        """Put JSON to ``path``; return the JSON of the answer.

        :raises CommandFailed: the service says no, or nothing.
        """
        return self._call("PUT", path, json.dumps(body).encode("utf-8"))

    def delete(self, path: str) -> None:
        """Delete what is at ``path``.

        :raises CommandFailed: the service says no, or nothing.
        """
        self._call("DELETE", path)

    def _call(self, method: str, path: str, body: bytes | None = None) -> Any:
        url = f"{self._endpoint}/{path}"
        if not url.startswith(("http://", "https://")):
            raise CommandFailed(f"the endpoint {self._endpoint!r} is not an http URL")
        headers = {"X-Auth-Token": self._token, "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(url, body, headers, method=method)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:  # noqa: S310
                content = response.read()
        except urllib.error.HTTPError as error:
            code = OF_STATUS.get(error.code, FAILED)
            raise CommandFailed(_told(error.code, error.read()), code) from None
        except (OSError, ValueError) as error:
            why = getattr(error, "reason", error)
            raise CommandFailed(f"{self._endpoint} cannot be reached: {why}", UNREACHABLE) from None
        return json.loads(content) if content else None


def segment(text: str) -> str:
    """Return what a user has typed as one segment of a path."""
    return quote(text, safe="")


def _told(status: int, content: bytes) -> str:
    """Return the message of a fault, whatever its name."""
    try:
        (fault,) = json.loads(content).values()
        return f"{fault['message']} (HTTP {status})"
    except (ValueError, AttributeError, TypeError, KeyError):
        return f"the service answered HTTP {status}"
