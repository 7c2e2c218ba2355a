"""Tokens: who somebody is, for which project and how long, under a signature.

A token holds nothing secret and grants nothing by itself: what its user may do is looked up
whenever it is used.
"""

from __future__ import annotations

import base64
import hmac
import json
from typing import Final

import attrs

from bootvol.errors import Unauthorized

#: What HP's tokens begin with (reference, section 1.2).
_PREFIX: Final = "HPAuth_"
#: Characters; none that was given out is as long.
_LONGEST: Final = 1024


@attrs.frozen
class Claims:
    """What a token says.

    :ivar user: the id.
    :ivar project: the id; None is none.
    :ivar issued: seconds since the epoch; ``expires`` too.
    :ivar credential: the fingerprint of what its user logged in with.
    :ivar nonce: no other token's.
    :ivar ancestors: the nonces of the tokens that it was got by.
    """

    user: str
    project: str | None
    issued: int
    expires: int
    credential: str
    nonce: str
    ancestors: tuple[str, ...] = ()


class Tokens:
    """Writes and reads tokens.

    :param key: whoever knows it can be anybody.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def fingerprint(self, kept: str) -> str:
        """Return what tells one hash of a password from another, and nothing else of it."""
        return _text(self._digest(b"credential", kept.encode("ascii"))[:9])

    def write(self, claims: Claims) -> str:
        """Return the token that says ``claims``."""
        *said, ancestors = attrs.astuple(claims, recurse=False)
        content = json.dumps([*said, *ancestors], separators=(",", ":")).encode("ascii")
        signed = _PREFIX + _text(content)
        return f"{signed}.{self._signature(signed)}"

    def read(self, token: str, now: float) -> Claims:
        """Return what a token says; it is hostile until its signature is found right.

        :param now: seconds since the epoch.
        :raises Unauthorized: nobody with this key wrote it, or it has expired.
        """
        if len(token) > _LONGEST or not token.isascii():
            raise Unauthorized
        signed, _, signature = token.rpartition(".")
        # The texts are compared, not what they decode to: a token has one form only.
        if not hmac.compare_digest(signature, self._signature(signed)):
            raise Unauthorized
        content = base64.urlsafe_b64decode(signed.removeprefix(_PREFIX) + "==")
        user, project, issued, expires, credential, nonce, *ancestors = json.loads(content)
        claims = Claims(user, project, issued, expires, credential, nonce, tuple(ancestors))
        if now >= claims.expires:
            raise Unauthorized
        return claims

    def _signature(self, signed: str) -> str:
        return _text(self._digest(b"token", signed.encode("ascii")))

    def _digest(self, purpose: bytes, content: bytes) -> bytes:
        return hmac.digest(self._key, purpose + b"\0" + content, "sha256")


def _text(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode("ascii")
