"""A client of the HTTP API."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any, Final
from urllib.parse import quote, unquote, urlencode, urlsplit

from bootvol.cli.failures import NOT_FOUND, UNAUTHORIZED, CommandFailed
from bootvol.cli.http import exchange
from bootvol.cli.login import Access

#: The most entries of one answer of the API (docs/api.md).
_PAGE: Final = 1000


class Client:
    """A client for one tenant's part of a service.

    :param access: returns the access data. The client calls the function once, before its first
        request.
    """

    def __init__(self, access: Callable[[], Access]) -> None:
        self._find_access = access

    @cached_property
    def _access(self) -> Access:
        return self._find_access()

    @property
    def tenant(self) -> str:
        """The client's tenant."""
        return unquote(self._access.endpoint.rpartition("/")[2])

    def get(self, path: str) -> Any:
        """Return the JSON at ``path``, relative to the base URI.

        :raises CommandFailed: if the service refuses or does not answer.
        """
        answer = self._call("GET", path)
        if answer is None:
            raise CommandFailed(f"{path}: the answer of the service is empty")
        return answer

    def all(self, path: str, key: str) -> list[Any]:
        """Return all entries of a list, from all its pages.

        :param path: a path without a query.
        :param key: the list's key in the answers.
        :raises CommandFailed: if the service refuses or does not answer.
        """
        found: dict[Any, Any] = {}
        query: str | None = ""
        while query is not None:
            page = self.get(f"{path}?{query}" if query else path)
            new = {each["id"]: each for each in _rows(page[key]) if each["id"] not in found}
            found |= new
            query = _next(page.get(f"{key}_links", ()))
            if query is None and len(new) >= _PAGE:
                # The service sends no links, and a full page may not be the last one.
                query = urlencode({"limit": _PAGE, "offset": len(found)})
            if not new:
                break
        return list(found.values())

    def post(self, path: str, body: object) -> Any:
        """Send JSON to ``path``; return the JSON of the answer.

        :raises CommandFailed: if the service refuses or does not answer.
        """
        return self._call("POST", path, body)

    def put(self, path: str, body: object) -> Any:
        """Put JSON to ``path``; return the JSON of the answer.

        :raises CommandFailed: if the service refuses or does not answer.
        """
        return self._call("PUT", path, body)

    def delete(self, path: str) -> None:
        """Delete the object at ``path``.

        :raises CommandFailed: if the service refuses or does not answer.
        """
        self._call("DELETE", path)

    def image(self, given: str) -> str:
        """Return the ``imageRef`` of an image that a user names by id, name or URL.

        :raises CommandFailed: if several images have the name, or the service refuses or does not
            answer.
        """
        if "://" in given:
            return given
        try:
            if self.get(f"images/{segment(given)}")["image"]["id"] == given:
                return given
        except CommandFailed as failure:
            if failure.exit_code != NOT_FOUND:
                raise
        named = self.get(f"images?{urlencode({'name': given})}")["images"]
        if len(named) > 1:
            ids = ", ".join(str(each["id"]) for each in named)
            raise CommandFailed(f"several images are called {given!r}; give the id of one: {ids}")
        # If no image has the name, the service will say so.
        return str(named[0]["id"]) if named else given

    def _call(self, method: str, path: str, body: object = None) -> Any:
        try:
            return self._send(method, path, body)
        except CommandFailed as failure:
            if failure.status != UNAUTHORIZED or not self._access.renewable:
                raise
        # The token may have expired: log in again, once.
        del self._access
        return self._send(method, path, body)

    def _send(self, method: str, path: str, body: object) -> Any:
        access = self._access
        headers = {"X-Auth-Token": access.token}
        url = f"{access.endpoint}/{path}"
        return exchange(method, url, headers, body, access.authorities)[0]


def _rows(listed: Any) -> list[Any]:
    """Return the entries of a list in an answer.

    :raises CommandFailed: if it is no list of objects with ids.
    """
    if isinstance(listed, list) and all(
        isinstance(each, dict) and isinstance(each["id"], int | str) for each in listed
    ):
        return listed
    raise CommandFailed("the service answers with a list of another form: it is another service")


def _next(links: Iterable[Any]) -> str | None:
    """Return the query of the link to the next page; None if the links lack one.

    The link's host is ignored: the token is for this service only.
    """
    return next((urlsplit(each["href"]).query for each in links if each["rel"] == "next"), None)


def segment(text: str) -> str:
    """Return a user's text as one segment of a path."""
    return quote(text, safe="")
