"""Signed tokens.  A token names its user, its project and its time of expiry.

A token contains no secret, and grants nothing by itself.  The user's rights are looked up at each
use.
"""

from __future__ import annotations

import base64
import hmac
import json
from typing import Final

import attrs

from bootvol.errors import Unauthorized

#: The prefix of HP's tokens (specification, section 1.2).
_PREFIX: Final = "HPAuth_"
#: Length limit in characters.  Every issued token is shorter.
_LONGEST: Final = 1024


@attrs.frozen
class Claims:
    """The content of a token.

    :ivar user: id of the user.
    :ivar project: id of the project; None for a token without a project.
    :ivar issued: time of issue in seconds since the epoch.  ``expires`` has the same unit.
    :ivar credential: fingerprint of the credential that the user logged in with.
    :ivar nonce: unique value of this token.
    :ivar ancestors: nonces of the tokens that this one was obtained from.
    """

    user: str
    project: str | None
    issued: int
    expires: int
    credential: str
    nonce: str
    ancestors: tuple[str, ...] = ()


class Tokens:
    """Writer and reader of tokens.

    :param key: the signing key.  Anybody with the key can act as any user.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def fingerprint(self, kept: str) -> str:
        """Return a short digest of a password's hash, to tell one hash from another."""
        return _text(self._digest(b"credential", kept.encode("ascii"))[:9])

    def write(self, claims: Claims) -> str:
        """Return the token with the given claims."""
        *said, ancestors = attrs.astuple(claims, recurse=False)
        content = json.dumps([*said, *ancestors], separators=(",", ":")).encode("ascii")
        signed = _PREFIX + _text(content)
        return f"{signed}.{self._signature(signed)}"

    def read(self, token: str, now: float) -> Claims:
        """Return the claims of a token.  The text is hostile until its signature is verified.

        :param now: current time in seconds since the epoch.
        :raises Unauthorized: if the token was not signed with this key, or has expired.
        """
        if len(token) > _LONGEST or not token.isascii():
            raise Unauthorized
        signed, _, signature = token.rpartition(".")
        # Compare the texts, not the decoded bytes: each token has only one valid form.
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
