"""Speaks Glance's API v2 to whichever of its endpoints answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

import orjson
from hyperlink import DecodedURL
from twisted.logger import Logger
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from bootvol.errors import ImageTruncated, SourceFailed
from bootvol_plugins.http.client import Client, stop
from bootvol_plugins.http.stream import BodyStream
from bootvol_plugins.http.urls import parse, to_ask

#: The most bytes that are read of an answer in JSON; a page of 1000 images has one MiB, and more
#: where they have many properties.
_LARGEST: Final = 16 * 1024 * 1024

#: The statuses of answers that have an image's data.
DATA: Final = frozenset({200, 206})

#: What messages call it: where it is concerns no tenant.
_NAME: Final = "Glance"

_T = TypeVar("_T")


class Glance:
    """Glance, wherever it answers.

    :param endpoints: its roots; that which answered last is asked first.
    :param client: asks.
    :param reactor: its clock.
    :param stall: seconds without a byte after which an answer is broken off.
    """

    _log = Logger()

    def __init__(
        self, endpoints: Sequence[str], client: Client, reactor: Any, stall: float
    ) -> None:
        self._endpoints = [parse(each) for each in endpoints]
        self._client = client
        self._reactor = reactor
        self._stall = stall

    async def get_data(
        self,
        token: str,
        path: Sequence[str],
        headers: Headers | None = None,
    ) -> tuple[int, IResponse]:
        """Ask for an image's data.

        :param path: its segments after the version.
        :returns: the answer's status, and the answer: its body has to be read or stopped if that is
            200 or 206, and has been stopped else.
        :raises SourceFailed: none of the endpoints answers for now.
        """

        async def ask(root: DecodedURL) -> tuple[int, IResponse]:
            response = await self._ask(root, token, path, (), headers)
            if response.code not in DATA:
                stop(response)
            return response.code, response

        return await self._each(ask)

    async def get_json(
        self, token: str, path: Sequence[str], query: Sequence[tuple[str, str]] = ()
    ) -> tuple[int, Any]:
        """Ask for JSON; return the answer's status, and what came if that is 200.

        :param path: its segments after the version.
        :raises SourceFailed: none of the endpoints answers for now, or in JSON.
        """

        async def ask(root: DecodedURL) -> tuple[int, Any]:
            response = await self._ask(root, token, path, query, None)
            if response.code != 200:
                stop(response)
                return response.code, None
            return response.code, await self._read(response)

        return await self._each(ask)

    async def _each(self, ask: Callable[[DecodedURL], Awaitable[_T]]) -> _T:
        """Return what the first endpoint says that does not fail."""
        for root in list(self._endpoints):
            try:
                return await ask(root)
            except SourceFailed as error:
                self._log.warn("{root}: {failure}", root=root.to_text(), failure=error.message)
                failed = error
                # From now on it is the last to be asked.
                self._endpoints.remove(root)
                self._endpoints.append(root)
        raise failed

    async def _ask(
        self,
        root: DecodedURL,
        token: str,
        path: Sequence[str],
        query: Sequence[tuple[str, str]],
        headers: Headers | None,
    ) -> IResponse:
        sent = Headers(dict((headers or Headers()).getAllRawHeaders()))
        sent.setRawHeaders("X-Auth-Token", [token])
        url = root.child("v2", *path).replace(query=query)
        response = await self._client.request("GET", to_ask(url), _NAME, sent)
        try:
            self._client.check_passing(response, _NAME)
        except SourceFailed:
            stop(response)
            raise
        return response

    async def _read(self, response: IResponse) -> Any:
        """Read an answer of bounded size.

        :raises SourceFailed: it breaks off, or is no JSON.
        """
        stream = BodyStream(response, self._reactor, self._stall, None, 0, None)
        text = memoryview(bytearray(_LARGEST))
        try:
            length = await stream.read_into(text)
            return orjson.loads(text[:length])
        except (ImageTruncated, orjson.JSONDecodeError):
            raise SourceFailed(f"{_NAME} answers with what is no JSON.") from None
        finally:
            await stream.close()
