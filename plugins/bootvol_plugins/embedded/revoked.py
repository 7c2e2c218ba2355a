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
from bootvol.threads import Threads
from bootvol_plugins.embedded.tokens import Claims

#: Number of revoked tokens remembered singly per user.  The limit bounds memory and disk.
MOST: Final = 1000


@attrs.define
class _Ended:
    """The revoked tokens of a user.

    :ivar tokens: time of expiry of each revoked token, by nonce.
    :ivar until: time in seconds since the epoch.  All tokens issued up to this time are revoked.
    :ivar kept: time when all of these tokens have expired, and the entry may be dropped.
    """

    tokens: dict[str, int] = attrs.Factory(dict)
    until: int = 0
    kept: int = 0


class Revoked:
    """A store of revoked tokens.  Each token is remembered until its time of expiry.

    :param seconds: returns the time in seconds since the epoch.
    """

    _log = Logger()

    def __init__(self, path: Path, threads: Threads, seconds: Callable[[], float]) -> None:
        """Load the file.  Blocks on the disk.

        :raises ConfigurationError: if the file exists, but has invalid content.
        """
        self._path = path
        self._threads = threads
        self._seconds = seconds
        self._lock = DeferredLock()
        self._users = _load(path)
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

    async def add(self, claims: Claims, lifetime: int) -> None:
        """Revoke a token, and all tokens obtained from it.  The revocation survives a restart.

        If a user revokes too many tokens, all tokens of the user so far are revoked.  Otherwise a
        thief could keep the owner from revoking a stolen token, by revoking others.

        :param lifetime: validity of any token in seconds.
        :raises IdentityFailed: if the disk fails.  The token is then revoked until the daemon
            restarts.
        """
        self._forget_expired()
        ended = self._users.setdefault(claims.user, _Ended())
        ended.tokens[claims.nonce] = claims.expires
        if len(ended.tokens) > MOST:
            now = int(self._seconds())
            last = max(now + lifetime, *ended.tokens.values())
            self._users[claims.user] = _Ended({}, max(now, claims.issued), last)
        self._changes += 1
        change = self._changes
        await self._lock.acquire()
        try:
            if self._kept >= change:
                return  # One write has stored all waiting changes.
            change = self._changes
            shown = {user: attrs.asdict(each) for user, each in self._users.items()}
            content = json.dumps(shown).encode("ascii")
            await self._threads.run(files.replace, self._path, content)
            self._kept = change
        except OSError as error:
            self._log.error("{path}: {error}", path=str(self._path), error=error)
            raise IdentityFailed from error
        finally:
            self._lock.release()

    def _forget_expired(self) -> None:
        now = self._seconds()
        for user, ended in list(self._users.items()):
            ended.tokens = {nonce: when for nonce, when in ended.tokens.items() if when > now}
            if not ended.tokens and ended.kept <= now:
                del self._users[user]


def _load(path: Path) -> dict[str, _Ended]:
    try:
        read = json.loads(path.read_bytes())
        return {
            str(user): _Ended(
                {str(nonce): int(when) for nonce, when in each["tokens"].items()},
                int(each["until"]),
                int(each["kept"]),
            )
            for user, each in read.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise ConfigurationError(
            f"identity: {path}: cannot be read ({error}). Put it back; or remove it and the key "
            "beside it, which ends all tokens."
        ) from error
