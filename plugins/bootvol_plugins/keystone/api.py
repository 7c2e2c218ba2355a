"""A client of Keystone's API v3, with a user of bootvol's own."""

from __future__ import annotations

import re
import time
from typing import Final

import attrs
import orjson
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from twisted.web.client import Agent
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from bootvol.errors import ImageTruncated, SourceFailed
from bootvol.reactors import IReactor
from bootvol_plugins.http.client import Client, stop, trusting
from bootvol_plugins.http.direct import QuietPool
from bootvol_plugins.http.stream import BodyStream
from bootvol_plugins.http.urls import parse, to_ask
from bootvol_plugins.keystone.flights import Flights
from bootvol_plugins.keystone.options import Access

#: Largest answer in bytes.  Without the catalog an answer has one or two thousand bytes.
_LARGEST: Final = 256 * 1024
#: The form of a token that a header of a request can hold.
_TOKEN: Final = re.compile(rb"[!-~]{1,8192}")
#: Fraction of its life after which bootvol's own token is replaced.
_OLD: Final = 0.9
#: Keystone rounds the time of issue down to whole seconds.  A token must not count beyond its end.
_ROUNDED: Final = 1.0
#: Size of the connection pool.
_CONNECTIONS: Final = 8


class _Read(BaseModel):
    model_config = ConfigDict(frozen=True)


class _Id(_Read):
    id: str = Field(min_length=1, max_length=255)


class _Role(_Read):
    name: str


class Described(_Read):
    """The fields that bootvol uses of Keystone's description of a token."""

    expires_at: AwareDatetime
    issued_at: AwareDatetime | None = None
    user: _Id
    project: _Id | None = None
    roles: list[_Role] = Field(default=[])


class _Shown(_Read):
    token: Described


@attrs.frozen
class _OwnToken:
    """A token of bootvol's own user.

    :ivar old_at: time to get another token, in the reactor's seconds.
    """

    text: str = attrs.field(repr=False)
    old_at: float


class Keystone:
    """A connection pool to Keystone, with a user of bootvol's own.

    The messages of errors name the server: they are for the log.
    """

    def __init__(self, options: Access, reactor: IReactor) -> None:
        """Load the authorities.  Blocks on the disk.

        :raises bootvol.errors.ConfigurationError: if the authorities cannot be read.
        """
        self._options = options
        self._reactor = reactor
        self._url = parse(options.url)
        self._pool = QuietPool(reactor, persistent=True)
        self._pool.maxPersistentPerHost = _CONNECTIONS
        agent = Agent(reactor, trusting(options.ca), options.timeout, pool=self._pool)
        self._client = Client(agent, reactor, options.timeout)
        self._own: _OwnToken | None = None
        #: Keystone's clock less the reactor's, in seconds, since the last login.
        self._ahead = time.time() - reactor.seconds()
        self._logins: Flights[_OwnToken] = Flights()

    async def describe(self, token: str) -> Described | None:
        """Return Keystone's description of a token; None if the token is invalid or has expired.

        :param token: printable ASCII.
        :raises SourceFailed: if Keystone does not tell.
        """
        own = await self._own_token()
        response = await self._ask_about(token, own)
        if response.code == 401:
            # Our own token may have been revoked.  Another call may have replaced it already.
            stop(response)
            if self._own is own:
                self._own = None
            response = await self._ask_about(token, await self._own_token())
        if response.code == 404:
            stop(response)
            return None
        self._check(response, 200, "bootvol's question about a token")
        return await self._read(response)

    async def own_token(self) -> str:
        """Return a token of bootvol's own user that is still valid for a while.

        :raises SourceFailed: if Keystone issues no token.
        """
        return (await self._own_token()).text

    def seconds_left(self, described: Described) -> float:
        """Return the seconds until a token expires, by Keystone's clock.

        The machine's clock may differ, and may be set at any moment.
        """
        return described.expires_at.timestamp() - self._reactor.seconds() - self._ahead

    def forget(self, token: str) -> None:
        """Stop using a token of bootvol's own, because a service rejected the token."""
        if self._own is not None and self._own.text == token:
            self._own = None

    async def close(self) -> None:
        """Close the connections."""
        await self._pool.closeCachedConnections()

    async def _ask_about(self, token: str, own: _OwnToken) -> IResponse:
        url = self._url.child("auth", "tokens").add("nocatalog")
        headers = {"X-Auth-Token": [own.text], "X-Subject-Token": [token]}
        return await self._client.request("GET", to_ask(url), url.host, Headers(headers))

    async def _own_token(self) -> _OwnToken:
        if self._own is None or self._reactor.seconds() >= self._own.old_at:
            self._own = await self._logins.join(b"", self._log_in)
        return self._own

    async def _log_in(self) -> _OwnToken:
        url = self._url.child("auth", "tokens").add("nocatalog")
        body = orjson.dumps(self._options.login())
        headers = Headers({"Content-Type": ["application/json"]})
        asked, now = self._reactor.seconds(), time.time()
        response = await self._client.request("POST", to_ask(url), url.host, headers, body)
        self._check(response, 201, "bootvol's own credentials")
        (text, *_) = response.headers.getRawHeaders(b"X-Subject-Token") or [b""]
        own = await self._read(response)
        if not _TOKEN.fullmatch(text):
            raise self._without_token()
        self._ahead = (own.issued_at.timestamp() + _ROUNDED if own.issued_at else now) - asked
        old_at = self._reactor.seconds() + self.seconds_left(own) * _OLD
        return _OwnToken(text.decode("ascii"), old_at)

    def _check(self, response: IResponse, wanted: int, what: str) -> None:
        """Check that Keystone's answer has the expected status.

        :param what: the subject of bootvol's request, for the message.
        :raises SourceFailed: if the answer has another status.
        """
        if response.code == wanted:
            return
        stop(response)
        self._client.check_passing(response, self._url.host)
        raise SourceFailed(f"{self._url.host} answers {response.code} to {what}.")

    async def _read(self, response: IResponse) -> Described:
        """Read an answer of bounded size.

        :raises SourceFailed: if the answer breaks off, or is not a token.
        """
        stream = BodyStream(response, self._reactor, self._options.timeout, None, 0, None)
        text = memoryview(bytearray(_LARGEST))
        try:
            length = await stream.read_into(text)
            return _Shown.model_validate_json(bytes(text[:length])).token
        except ImageTruncated:
            raise SourceFailed(f"{self._url.host} broke off its answer.") from None
        except ValidationError:
            raise self._without_token() from None
        finally:
            await stream.close()

    def _without_token(self) -> SourceFailed:
        return SourceFailed(f"{self._url.host} answers without a valid token.")
