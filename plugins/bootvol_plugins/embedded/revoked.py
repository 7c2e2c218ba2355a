"""Tokens that were ended before their time: in memory, and in a file for the next start."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

from twisted.internet.defer import DeferredLock
from twisted.logger import Logger

from bootvol.errors import ConfigurationError, IdentityFailed, TooManyLogins
from bootvol.threads import Threads
from bootvol_plugins.embedded import files
from bootvol_plugins.embedded.tokens import Claims

#: How many of a user's tokens are remembered, so that nobody can fill memory and disk.
MOST: Final = 1000


class Revoked:
    """Remembers each until it would have expired anyhow.

    :param seconds: tells the time, in seconds since the epoch.
    """

    _log = Logger()

    def __init__(self, path: Path, threads: Threads, seconds: Callable[[], float]) -> None:
        """Blocks on the disk.

        :raises ConfigurationError: the file is there, but is not what was written.
        """
        self._path = path
        self._threads = threads
        self._seconds = seconds
        self._lock = DeferredLock()
        #: By user, then by nonce, when it expires.
        self._expiries = _load(path)

    def __contains__(self, claims: Claims) -> bool:
        return claims.nonce in self._expiries.get(claims.user, {})

    async def add(self, claims: Claims) -> None:
        """End a token; when this returns, that survives a restart.

        :raises TooManyLogins: its user has ended too many.
        :raises IdentityFailed: the disk failed; it is ended until the daemon restarts.
        """
        self._forget_expired()
        own = self._expiries.setdefault(claims.user, {})
        if len(own) >= MOST:
            raise TooManyLogins(max(1.0, min(own.values()) - self._seconds()))
        own[claims.nonce] = claims.expires
        await self._lock.acquire()
        try:
            content = json.dumps(self._expiries).encode("ascii")
            await self._threads.run(files.replace, self._path, content)
        except OSError as error:
            self._log.error("{path}: {error}", path=str(self._path), error=error)
            raise IdentityFailed from error
        finally:
            self._lock.release()

    def _forget_expired(self) -> None:
        now = self._seconds()
        left = {
            user: {nonce: expires for nonce, expires in own.items() if expires > now}
            for user, own in self._expiries.items()
        }
        self._expiries = {user: own for user, own in left.items() if own}


def _load(path: Path) -> dict[str, dict[str, int]]:
    try:
        read = json.loads(path.read_bytes())
        return {str(user): {str(n): int(e) for n, e in own.items()} for user, own in read.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigurationError(
            f"identity: {path}: cannot be read ({error}). Put it back; or remove it and the key "
            "beside it, which ends all tokens."
        ) from error
