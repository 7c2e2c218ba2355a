"""Revoked tokens, kept in memory, and in a file for the next start."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

import attrs
from twisted.internet.defer import DeferredLock
from twisted.logger import Logger

from bootvol import files
from bootvol.errors import ConfigurationError, IdentityFailed
from bootvol.jsons import JsonObject
from bootvol.threads import Threads
from bootvol_plugins.embedded.options import LONGEST_LIFE
from bootvol_plugins.embedded.tokens import Claims

#: Number of revoked tokens remembered singly per user.  The limit bounds memory and disk.
MOST: Final = 1000
#: Seconds until all tokens of a user have expired.  The operator may have lowered ``token_hours``
#: since these tokens were made.
_ALL_EXPIRED: Final = LONGEST_LIFE * 3600


@attrs.frozen
class _End:
    """The time when a token has expired, by two clocks.

    The system's clock may be set forward and back.  A revocation that were forgotten meanwhile
    would make the token valid again.

    :ivar wall: the time of expiry, in seconds since the epoch.
    :ivar steady: the same time, in seconds of a clock that nobody can set.
    """

    wall: int = 0
    steady: float = 0.0


@attrs.define
class _Ended:
    """The revoked tokens of a user.

    :ivar tokens: expiry of each revoked token, by nonce.
    :ivar until: time in seconds since the epoch.  All tokens issued up to this time are revoked.
    :ivar kept: time when all of these tokens have expired, and the entry may be dropped.
    """

    tokens: dict[str, _End] = attrs.Factory(dict)
    until: int = 0
    kept: _End = _End()

    def shown(self) -> JsonObject:
        """Return the values for the file, with the times since the epoch only."""
        tokens = {nonce: end.wall for nonce, end in self.tokens.items()}
        return {"tokens": tokens, "until": self.until, "kept": self.kept.wall}


class Revoked:
    """A store of revoked tokens.  Each token is remembered until its time of expiry.

    :param seconds: returns the time in seconds since the epoch.
    :param steady: returns the seconds of a clock that nobody can set.
    :param lifetime: validity of any token in seconds.  What the file holds is kept for so long,
        since the system's clock may be wrong at the start.
    """

    _log = Logger()

    def __init__(
        self,
        path: Path,
        threads: Threads,
        seconds: Callable[[], float],
        steady: Callable[[], float],
        lifetime: int,
    ) -> None:
        """Load the file.  Blocks on the disk.

        :raises ConfigurationError: if the file exists, but has invalid content.
        """
        self._path = path
        self._threads = threads
        self._seconds = seconds
        self._steady = steady
        self._lock = DeferredLock()
        self._users = _load(path, steady() + lifetime)
        #: Number of changes so far, and number of changes that the file contains.
        self._changes = self._kept = 0

    def __contains__(self, claims: Claims) -> bool:
        ended = self._users.get(claims.user)
        if ended is None:
            return False
        known = ended.tokens
        return claims.issued <= ended.until or any(
            nonce in known for nonce in (claims.nonce, *claims.ancestors)
        )

    def earliest(self, user: str) -> int:
        """Return the earliest time of issue that a new token of a user may state."""
        ended = self._users.get(user)
        return ended.until + 1 if ended and ended.until else 0

    async def add(self, claims: Claims) -> None:
        """Revoke a token, and all tokens obtained from it.  The revocation survives a restart.

        If a user revokes too many tokens, all tokens of the user so far are revoked.  Otherwise a
        thief could keep the owner from revoking a stolen token, by revoking others.

        :raises IdentityFailed: if the disk fails.  The token is then revoked until the daemon
            restarts.
        """
        self._forget_expired()
        now, steady = self._seconds(), self._steady()
        ended = self._users.setdefault(claims.user, _Ended())
        ended.tokens[claims.nonce] = _End(claims.expires, steady + claims.expires - now)
        if len(ended.tokens) > MOST:
            last = _End(int(now) + _ALL_EXPIRED, steady + _ALL_EXPIRED)
            self._users[claims.user] = _Ended({}, max(int(now), claims.issued), last)
        self._changes += 1
        change = self._changes
        async with self._lock:
            if self._kept >= change:
                return  # One write has stored all waiting changes.
            change = self._changes
            shown = {user: each.shown() for user, each in self._users.items()}
            content = json.dumps(shown).encode("ascii")
            try:
                await self._threads.run(files.replace, self._path, content)
            except OSError as error:
                self._log.error("{path}: {error}", path=str(self._path), error=error)
                raise IdentityFailed from error
            self._kept = change

    def _forget_expired(self) -> None:
        now, steady = self._seconds(), self._steady()

        def has_passed(end: _End) -> bool:
            return end.wall <= now and end.steady <= steady

        for user, ended in list(self._users.items()):
            ended.tokens = {
                nonce: end for nonce, end in ended.tokens.items() if not has_passed(end)
            }
            if not ended.tokens and has_passed(ended.kept):
                del self._users[user]


def _load(path: Path, steady: float) -> dict[str, _Ended]:
    """Read the file.

    :param steady: the time until which everything is kept: see :class:`_End`.
    """
    try:
        read = json.loads(path.read_bytes())
        return {
            str(user): _Ended(
                {str(nonce): _End(int(when), steady) for nonce, when in each["tokens"].items()},
                int(each["until"]),
                _End(int(each["kept"]), steady),
            )
            for user, each in read.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise ConfigurationError(
            f"identity: {path}: cannot be read ({error}). Restore the file; or remove the file and"
            " the key "
            "beside it, which ends all tokens."
        ) from error
