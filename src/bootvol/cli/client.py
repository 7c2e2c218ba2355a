"""A client of the HTTP API."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any, Final, cast
from urllib.parse import quote, unquote, urlencode, urlsplit

from bootvol.cli.failures import INTERRUPTED, NOT_FOUND, UNAUTHORIZED, CommandFailed
from bootvol.cli.http import exchange
from bootvol.cli.login import LOGIN_WAYS, Access
from bootvol.cli.shapes import LINKS, NAMED, OBJECT, Shape, fits, other_form, taken
from bootvol.cli.signals import Interrupted
from bootvol.jsons import JsonObject

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

    def get(self, path: str, key: str, shape: Shape = OBJECT) -> Any:
        """Return a value of the JSON object at ``path``, relative to the base URI.

        :param key: the value's key in the object.
        :raises CommandFailed: if the service refuses or does not answer, or the value has another
            shape.
        """
        return taken(self.answer(path), key, shape)

    def answer(self, path: str) -> JsonObject:
        """Return the JSON object at ``path``, relative to the base URI.

        :raises CommandFailed: if the service refuses or does not answer.
        """
        answer = self._call("GET", path)
        if answer is None:
            raise CommandFailed(f"{path}: the service's answer is empty")
        return cast("JsonObject", answer)

    def all(self, path: str, key: str, shape: Shape = OBJECT) -> list[JsonObject]:
        """Return all entries of a list, from all its pages.

        :param path: a path without a query.
        :param key: the list's key in the answers.
        :param shape: the shape of an entry, besides its id.
        :raises CommandFailed: if the service refuses or does not answer, or an entry has another
            shape.
        """
        found: dict[object, JsonObject] = {}
        query: str | None = ""
        while query is not None:
            page = self.answer(f"{path}?{query}" if query else path)
            rows = taken(page, key, [NAMED])
            if not fits(rows, [shape]):
                raise other_form(key)
            new = {each["id"]: each for each in rows if each["id"] not in found}
            found |= new
            query = _next(page, f"{key}_links")
            if query is None and len(new) >= _PAGE:
                # The service sends no links, and a full page may not be the last one.
                query = urlencode({"limit": _PAGE, "offset": len(found)})
            if not new:
                break
        return list(found.values())

    def post(self, path: str, body: object, key: str, shape: Shape = OBJECT) -> Any:
        """Send JSON to ``path``; return a value of the answer.

        :param key: the value's key in the answer.
        :raises CommandFailed: if the service refuses or does not answer, or the value has another
            shape.
        """
        return taken(self._call("POST", path, body), key, shape)

    def put(self, path: str, body: object, key: str) -> JsonObject:
        """Put JSON to ``path``; return an object of the answer.

        :param key: the object's key in the answer.
        :raises CommandFailed: as :meth:`post`.
        """
        return cast("JsonObject", taken(self._call("PUT", path, body), key, OBJECT))

    def send(self, path: str, content: Iterable[bytes], size: int | None) -> None:
        """Put bytes to ``path``, once.

        :param size: number of bytes; None if unknown.
        :raises CommandFailed: as :meth:`post`.
        """
        access = self._access
        headers = {"X-Auth-Token": access.token, "Content-Type": "application/octet-stream"}
        if size is not None:
            headers["Content-Length"] = str(size)
        exchange("PUT", self._url(path), headers, None, access.authorities, content)

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
            if self.get(f"images/{segment(given)}", "image", NAMED)["id"] == given:
                return given
        except CommandFailed as failure:
            if failure.exit_code != NOT_FOUND:
                raise
        query = urlencode({"name": given}, errors="surrogatepass")
        named = self.get(f"images?{query}", "images", [NAMED])
        if len(named) > 1:
            ids = ", ".join(str(each["id"]) for each in named)
            raise CommandFailed(f"several images are called {given!r}; give the id of one: {ids}")
        # If no image has the name, the service will say so.
        return str(named[0]["id"]) if named else given

    def _call(self, method: str, path: str, body: object = None) -> object:
        try:
            return self._send(method, path, body)
        except CommandFailed as failure:
            if failure.status == UNAUTHORIZED and not self._access.token:
                raise CommandFailed(
                    f"{failure}; no token was given: {LOGIN_WAYS}",
                    failure.exit_code,
                    failure.status,
                ) from None
            if failure.status != UNAUTHORIZED or not self._access.renewable:
                raise
        # The token may have expired: log in again, once.
        del self._access
        return self._send(method, path, body)

    def _send(self, method: str, path: str, body: object) -> object:
        access = self._access
        headers = {"X-Auth-Token": access.token}
        try:
            return exchange(method, self._url(path), headers, body, access.authorities)[0]
        except KeyboardInterrupt as interrupted:
            if method == "GET":
                raise
            # The service may have the request, and does the work without this command.
            raise CommandFailed(
                "interrupted before the service's answer; the service may do the work nevertheless",
                interrupted.exit_code if isinstance(interrupted, Interrupted) else INTERRUPTED,
            ) from None

    def _url(self, path: str) -> str:
        """Return the URL of a path relative to the base URI.

        A path with a slash at its beginning is relative to the root of the service.
        """
        endpoint = self._access.endpoint
        if not path.startswith("/"):
            return f"{endpoint}/{path}"
        # The base URI ends in a version and a tenant.
        return f"{endpoint.rsplit('/', 2)[0]}{path}"


def _next(page: JsonObject, key: str) -> str | None:
    """Return the query of the link to the next page; None if the page lacks one.

    The link's host is ignored: the token is for this service only.

    :raises CommandFailed: if the links have another shape.
    """
    links = page.get(key, [])
    if not fits(links, LINKS):
        raise other_form(key)
    try:
        return next((urlsplit(each["href"]).query for each in links if each["rel"] == "next"), None)
    except ValueError:
        raise other_form(key) from None


def segment(text: str) -> str:
    """Return a user's text as one segment of a path."""
    # An argument of the command may be no text in UTF-8: Python then keeps surrogates for bytes.
    return quote(text, safe="", errors="surrogatepass")
