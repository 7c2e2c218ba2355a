"""Tokens of bootvol's own user, from Keystone."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import orjson
from pydantic import AwareDatetime, BaseModel, ValidationError
from twisted.internet.defer import DeferredLock
from twisted.web.http_headers import Headers

from bootvol.errors import SourceFailed, SourceRefused
from bootvol_plugins.glance.api import read_json
from bootvol_plugins.glance.options import GlanceOptions
from bootvol_plugins.http.client import Client, stop
from bootvol_plugins.http.urls import parse, to_ask

#: Seconds before its end at which a token is no longer used.
_MARGIN: Final = 120.0


class _Token(BaseModel):
    expires_at: AwareDatetime


class _Issued(BaseModel):
    token: _Token


class OwnTokens:
    """Keeps a token for as long as it is valid."""

    def __init__(self, options: GlanceOptions, client: Client, reactor: Any) -> None:
        self._options = options
        self._client = client
        self._reactor = reactor
        self._lock = DeferredLock()
        self._token: str | None = None
        self._ends = 0.0

    async def get(self) -> str:
        """Return a token that is valid for a while yet.

        :raises SourceFailed: Keystone does not answer for now.
        :raises SourceRefused: it does not accept the user.
        """
        await self._lock.acquire()
        try:
            if self._token is None or self._reactor.seconds() > self._ends - _MARGIN:
                self._token, self._ends = await self._issue()
            return self._token
        finally:
            self._lock.release()

    def drop(self, token: str) -> None:
        """Use a token no more: it was not accepted."""
        if self._token == token:
            self._token = None

    async def _issue(self) -> tuple[str, float]:
        url = parse(self._options.auth_url).child("auth", "tokens")
        response = await self._client.request(
            "POST",
            to_ask(url),
            url.host,
            Headers({"Content-Type": ["application/json"]}),
            orjson.dumps(_login(self._options)),
        )
        if response.code != 201:
            stop(response)
            self._client.check_passing(response, url.host)
            raise SourceRefused(f"Keystone answers {response.code} to bootvol's own user.")
        answer = await read_json(response, self._reactor, self._options.stall, url.host)
        (token,) = response.headers.getRawHeaders("X-Subject-Token") or [""]
        try:
            ends: datetime = _Issued.model_validate(answer).token.expires_at
        except ValidationError:
            raise SourceFailed(f"{url.host} answers with what is no token.") from None
        return token, ends.timestamp()


def _login(options: GlanceOptions) -> object:
    """Return the request for a token (Identity API v3, "Password authentication")."""
    user = {
        "name": options.username,
        "domain": {"name": options.user_domain},
        "password": options.password.get_secret_value(),
    }
    project = {"name": options.project, "domain": {"name": options.project_domain}}
    return {
        "auth": {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": project},
        }
    }
