"""A client of Glance's API v2, with fail-over among Glance's endpoints."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

import orjson
from hyperlink import DecodedURL
from twisted.logger import Logger
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer, IResponse

from bootvol.errors import ImageTruncated, SourceFailed
from bootvol.fair_share import Paced
from bootvol.jsons import JsonObject
from bootvol.reactors import IReactor
from bootvol_plugins.http.client import Client, is_unanswered, stop
from bootvol_plugins.http.stream import BodyStream
from bootvol_plugins.http.urls import parse, to_ask

#: Largest answer in JSON in bytes. A page of 1000 images has one MiB, or more with many properties.
_LARGEST: Final = 16 * 1024 * 1024

#: The statuses of answers with an image's data.
DATA: Final = frozenset({200, 206})

#: The name in messages. Glance's address does not concern tenants.
_NAME: Final = "Glance"

_T = TypeVar("_T")


class Glance:
    """A client of Glance.  Requests, and the reading of answers, take turns by asker.

    :param endpoints: root URLs of Glance.  The endpoint that answered last is asked first.
    :param client: sends the requests.
    :param reactor: the clock.
    :param stall: seconds without a byte until an answer fails.
    :ivar pace: gives the turns.  A request, or a page of images, takes milliseconds of the reactor.
    """

    _log = Logger()

    def __init__(
        self, endpoints: Sequence[str], client: Client, reactor: IReactor, stall: float
    ) -> None:
        self._endpoints = [parse(each) for each in endpoints]
        self._client = client
        self._reactor = reactor
        self._stall = stall
        self.pace = Paced(reactor)

    async def get_data(
        self,
        asker: str,
        token: str,
        path: Sequence[str],
        headers: Headers | None = None,
    ) -> tuple[int, IResponse]:
        """Request an image's data.

        :param asker: the tenant; empty for the daemon itself.
        :param path: segments of the path after the version.
        :returns: the status and the answer.  For status 200 or 206, the caller must read or stop
            the body.  For other statuses, the body has been stopped.
        :raises SourceFailed: if no endpoint answers at the moment.
        """

        async def ask(root: DecodedURL) -> tuple[int, IResponse]:
            response = await self._data(root, token, path, headers)
            self._check(response)
            if response.code not in DATA:
                stop(response)
            return response.code, response

        return await self._each(asker, ask)

    async def get_json(
        self, asker: str, token: str, path: Sequence[str], query: Sequence[tuple[str, str]] = ()
    ) -> tuple[int, object]:
        """Request JSON; return the status, and the value if the status is 200.

        :param asker: see :meth:`get_data`.
        :param path: segments of the path after the version.
        :raises SourceFailed: if no endpoint answers in JSON at the moment.
        """

        async def ask(root: DecodedURL) -> tuple[int, object]:
            response = await self._ask(root, token, path, query, None)
            self._check(response)
            if response.code != 200:
                stop(response)
                return response.code, None
            return response.code, await self._read(asker, response)

        return await self._each(asker, ask)

    async def send_json(
        self,
        asker: str,
        token: str,
        method: str,
        path: Sequence[str],
        body: JsonObject | Sequence[JsonObject] | None,
        kind: str = "application/json",
    ) -> tuple[int, object]:
        """Send a request that changes something; return the status, and the answer's JSON if any.

        Only an endpoint that cannot be reached is followed by another one: the request may have
        had its effect.

        :param asker: see :meth:`get_data`.
        :param path: segments of the path after the version.
        :param kind: the content type of the body.
        :raises SourceFailed: if no endpoint answers at the moment.
        """
        data = None if body is None else orjson.dumps(body)

        async def ask(root: DecodedURL) -> tuple[int, object]:
            headers = Headers({"X-Auth-Token": [token]})
            if data is not None:
                headers.setRawHeaders("Content-Type", [kind])
            url = root.child("v2", *path)
            response = await self._client.request(method, to_ask(url), _NAME, headers, data)
            self._check(response)
            if response.code == 204 or not _is_json(response):
                stop(response)
                return response.code, None
            return response.code, await self._read(asker, response)

        return await self._each(asker, ask)

    async def put_data(self, token: str, path: Sequence[str], data: IBodyProducer) -> int:
        """Send an image's data to one endpoint; return the status of the answer.

        The caller limits the time.

        :param path: segments of the path after the version.
        :raises SourceFailed: if the endpoint does not take the data.
        """
        headers = Headers({"X-Auth-Token": [token], "Content-Type": ["application/octet-stream"]})
        url = self._endpoints[0].child("v2", *path)
        response = await self._client.request(
            "PUT", to_ask(url), _NAME, headers, data, patient=True
        )
        self._check(response)
        stop(response)
        return int(response.code)

    async def _each(self, asker: str, ask: Callable[[DecodedURL], Awaitable[_T]]) -> _T:
        """Return the result of the first endpoint that does not fail."""
        for root in list(self._endpoints):
            await self.pace.turn(asker)
            try:
                return await ask(root)
            except SourceFailed as error:
                self._log.warn("{root}: {failure}", root=root.to_text(), failure=error.message)
                failed = error
                # Ask the failed endpoint last from now on.
                self._endpoints.remove(root)
                self._endpoints.append(root)
        raise failed

    async def _data(
        self, root: DecodedURL, token: str, path: Sequence[str], headers: Headers | None
    ) -> IResponse:
        """Request data, or all data if Glance fails at a request for a part.

        Some stores, and some proxies, fail at each such request.  A busy Glance asks to wait.
        """
        if headers is not None:
            try:
                response = await self._ask(root, token, path, (), headers)
            except SourceFailed as error:
                if not is_unanswered(error):
                    raise
            else:
                if response.code < 500 or response.headers.hasHeader(b"retry-after"):
                    return response
                stop(response)
        return await self._ask(root, token, path, (), None)

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
        return await self._client.request("GET", to_ask(url), _NAME, sent)

    def _check(self, response: IResponse) -> None:
        try:
            self._client.check_passing(response, _NAME)
        except SourceFailed:
            stop(response)
            raise

    async def _read(self, reader: str, response: IResponse) -> object:
        """Read an answer of bounded size.

        :raises SourceFailed: if the answer breaks off or is not JSON.
        """
        stream = BodyStream(response, self._reactor, self._stall, None, 0, None)
        text = memoryview(bytearray(_LARGEST))
        try:
            length = await stream.read_into(text)
            await self.pace.turn(reader)
            return orjson.loads(text[:length])
        except (ImageTruncated, orjson.JSONDecodeError):
            raise SourceFailed(f"{_NAME} answers with invalid JSON.") from None
        finally:
            await stream.close()


def _is_json(response: IResponse) -> bool:
    kinds = response.headers.getRawHeaders("content-type") or [""]
    return str(kinds[0]).startswith("application/json")
