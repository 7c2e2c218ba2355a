"""The ``static`` identity: a fixed list of tokens in the configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import sha256
from typing import Final

import attrs
from pydantic import Field, SecretStr, field_validator
from zope.interface import implementer

from bootvol.errors import Unauthorized
from bootvol.interfaces import IdentityPlugin, IIdentity, IReloadable, PluginContext
from bootvol.model import Caller
from bootvol.options import Options, Secret, Text

#: The roles of a token without roles, as before policies existed.
_ROLES: Final = ("member",)
_SENT: Final = re.compile(r"[!-~]+")


class Token(Options):
    """A table ``[[identity.tokens]]``."""

    token: Secret
    # The tenant is a part of paths. Dots alone would mean another folder (RFC 3986, section 5.2.4).
    tenant: str = Field(pattern=r"^\.*[A-Za-z0-9_-][A-Za-z0-9._-]*$", max_length=255)
    user: Text
    roles: list[str] = Field(default=[])

    @field_validator("token")
    @classmethod
    def _can_be_sent(cls, value: SecretStr) -> SecretStr:
        # Clients send the token as the value of a header (RFC 9110, section 5.5).
        if not _SENT.fullmatch(value.get_secret_value()):
            raise ValueError("a token consists of visible ASCII characters, without spaces")
        return value


class StaticOptions(Options):
    """The table ``[identity]`` of this plugin."""

    tokens: list[Token] = Field(min_length=1)
    """The tokens, which never change: tables with ``token``, ``tenant``, ``user`` and ``roles``."""

    @field_validator("tokens")
    @classmethod
    def _differ(cls, value: list[Token]) -> list[Token]:
        seen: dict[str, Token] = {}
        for each in value:
            first = seen.setdefault(each.token.get_secret_value(), each)
            if first is not each:
                raise ValueError(
                    f"the user {first.user!r} of tenant {first.tenant!r} and the user"
                    f" {each.user!r} of tenant {each.tenant!r} have the same token"
                )
        return value


@implementer(IIdentity, IReloadable)
class StaticIdentity:
    """Finds tokens by their digest, so the time of a lookup reveals nothing about other tokens."""

    def __init__(self, options: StaticOptions) -> None:
        self._callers = _callers(options)

    async def reload(self, settings: StaticOptions) -> None:
        """See :meth:`bootvol.interfaces.IReloadable.reload`."""
        self._callers = _callers(settings)

    async def authenticate(self, token: str) -> Caller:
        """See :meth:`bootvol.interfaces.IIdentity.authenticate`."""
        try:
            caller = self._callers[_digest(token)]
        except KeyError:
            raise Unauthorized from None
        # The operator may have listed tokens here that an image source knows, too.
        return attrs.evolve(caller, token=token)


def _callers(options: StaticOptions) -> dict[bytes, Caller]:
    return {
        _digest(each.token.get_secret_value()): Caller(
            each.user, each.tenant, frozenset(each.roles or _ROLES)
        )
        for each in options.tokens
    }


def _digest(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogatepass")).digest()


def _make(options: StaticOptions, _context: PluginContext) -> StaticIdentity:
    return StaticIdentity(options)


def _roles(options: StaticOptions) -> Iterator[tuple[str, str]]:
    for n, token in enumerate(options.tokens):
        for role in token.roles:
            yield f"tokens[{n}].roles", role


PLUGIN = IdentityPlugin(StaticOptions, _make, roles=_roles)
