"""A client of the HTTP API."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any, Final
from urllib.parse import quote, unquote, urlencode, urlsplit

from bootvol.cli.failures import NOT_FOUND, UNAUTHORIZED, CommandFailed
from bootvol.cli.http import exchange
from bootvol.cli.login import Access

#: The most that one answer of the API lists (docs/api.md).
_PAGE: Final = 1000


class Client:
    """Speaks to one tenant's part of a service.

    :param access: is called once, and not before anything is asked of the service.
    """

    def __init__(self, access: Callable[[], Access]) -> None:
        self._find_access = access

    @cached_property
    def _access(self) -> Access:
        return self._find_access()

    @property
    def tenant(self) -> str:
        """The tenant that it speaks for."""
        return unquote(self._access.endpoint.rpartition("/")[2])

    def get(self, path: str) -> Any:
        """Return the JSON at ``path``, relative to the base URI.

        :raises CommandFailed: the service says no, or nothing.
        """
        return self._call("GET", path)

    def all(self, path: str, key: str) -> list[Any]:
        """Return what a list holds, of all its pages.

        :param path: has no query.
        :param key: under which the list is in the answers.
        :raises CommandFailed: the service says no, or nothing.
        """
        found: dict[Any, Any] = {}
        query: str | None = ""
        while query is not None:
            page = self.get(f"{path}?{query}" if query else path)
            new = {each["id"]: each for each in page[key] if each["id"] not in found}
            found |= new
            query = _next(page.get(f"{key}_links", ()))
            if query is None and len(new) >= _PAGE:
                # A service without links; a page of the largest size may not be the last one.
                query = urlencode({"limit": _PAGE, "offset": len(found)})
            if not new:
                break
        return list(found.values())

    def post(self, path: str, body: object) -> Any:
        """Send JSON to ``path``; return the JSON of the answer.

        :raises CommandFailed: the service says no, or nothing.
        """
        return self._call("POST", path, body)

    def put(self, path: str, body: object) -> Any:
        """Put JSON to ``path``; return the JSON of the answer.

        :raises CommandFailed: the service says no, or nothing.
        """
        return self._call("PUT", path, body)

    def delete(self, path: str) -> None:
        """Delete what is at ``path``.

        :raises CommandFailed: the service says no, or nothing.
        """
        self._call("DELETE", path)

    def image(self, given: str) -> str:
        """Return what ``imageRef`` is to be for what a user calls an image: its id, name or URL.

        :raises CommandFailed: several images have that name, or the service says no, or nothing.
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
        # Where nothing has that name the service says so.
        return str(named[0]["id"]) if named else given

    def _call(self, method: str, path: str, body: object = None) -> Any:
        try:
            return self._send(method, path, body)
        except CommandFailed as failure:
            if failure.status != UNAUTHORIZED or not self._access.renewable:
                raise
        # The token may have expired since: log in again, once.
        del self._access
        return self._send(method, path, body)

    def _send(self, method: str, path: str, body: object) -> Any:
        access = self._access
        headers = {"X-Auth-Token": access.token}
        url = f"{access.endpoint}/{path}"
        return exchange(method, url, headers, body, access.authorities)[0]


def _next(links: Iterable[Any]) -> str | None:
    """Return the query of the link to the next page; None if there is none.

    Where else a link leads does not count: the token is for this service alone.
    """
    return next((urlsplit(each["href"]).query for each in links if each["rel"] == "next"), None)


def segment(text: str) -> str:
    """Return what a user has typed as one segment of a path."""
    return quote(text, safe="")
