"""The identity service: finds the caller of a token, from Keystone or from a cache."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Final, TypeAlias

import attrs
from cachetools import TLRUCache
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.logger import Logger
from zope.interface import implementer

from bootvol.errors import IdentityUnavailable, SourceFailed, TokenWithoutProject, Unauthorized
from bootvol.interfaces import IClosable, IIdentity, IReloadable
from bootvol.model import Caller
from bootvol.reactors import IReactor
from bootvol_plugins.keystone.api import Described, Keystone
from bootvol_plugins.keystone.flights import Flights
from bootvol_plugins.keystone.options import KeystoneOptions

#: The form of Keystone's tokens.  No other text is sent to Keystone in a header.
_TOKEN: Final = re.compile(r"[!-~]{1,8192}")
#: Number of concurrent calls to Keystone.  Further calls wait.
_AT_ONCE: Final = 16
#: Seconds until the next try, if Keystone states no time.
_RETRY: Final = 5.0
#: Lifetime in seconds, and number, of cached answers about invalid tokens.
_WRONG_SECONDS: Final = 5.0
_WRONG_TOKENS: Final = 1000

#: The caller of a token, or the error of an invalid one.
_Answer = Caller | type[Unauthorized]


@attrs.frozen
class _Kept:
    answer: _Answer
    until: float


#: Answers by digest of the token, each until its time.
_Cache: TypeAlias = TLRUCache[bytes, _Kept]


def _until(_digest: bytes, kept: _Kept, _now: float) -> float:
    return kept.until


@implementer(IIdentity, IClosable, IReloadable)
class KeystoneIdentity:
    """The tokens that Keystone has issued."""

    _log = Logger()

    def __init__(self, options: KeystoneOptions, reactor: IReactor) -> None:
        """Load the authorities.  Blocks on the disk.

        :raises bootvol.errors.ConfigurationError: if the authorities cannot be read.
        """
        self._reactor = reactor
        self._use(options)
        self._flights: Flights[_Answer] = Flights()
        self._at_once = DeferredSemaphore(_AT_ONCE)
        self._failure = ""

    def _use(self, options: KeystoneOptions) -> None:
        self._keystone = Keystone(options, self._reactor)
        self._timeout = options.timeout
        self._lifetime = options.cache_seconds
        seconds = self._reactor.seconds
        self._right: _Cache = TLRUCache(options.cache_tokens, _until, seconds)
        # Two caches: guessed tokens must not drive valid ones out.
        self._wrong: _Cache = TLRUCache(_WRONG_TOKENS, _until, seconds)

    async def reload(self, settings: KeystoneOptions) -> None:
        """See :meth:`bootvol.interfaces.IReloadable.reload`.

        The caches start empty: Keystone validates every token again.
        """
        earlier = self._keystone
        self._use(settings)
        await earlier.close()

    async def authenticate(self, token: str) -> Caller:
        """See :meth:`bootvol.interfaces.IIdentity.authenticate`."""
        if not _TOKEN.fullmatch(token):
            raise Unauthorized
        digest = sha256(token.encode("ascii")).digest()
        kept = self._right.get(digest) or self._wrong.get(digest)
        if kept is None:
            answer = await self._flights.join(digest, lambda: self._ask(token, digest))
        else:
            answer = kept.answer
        if isinstance(answer, Caller):
            return attrs.evolve(answer, token=token)
        raise answer

    async def close(self) -> None:
        """See :meth:`bootvol.interfaces.IClosable.close`."""
        await self._keystone.close()

    async def _ask(self, token: str, digest: bytes) -> _Answer:
        asked = Deferred.fromCoroutine(self._describe(token))
        asked.addTimeout(self._timeout, self._reactor, _timed_out)
        try:
            described = await asked
        except SourceFailed as error:
            self._note(error.message)
            raise IdentityUnavailable(max(error.retry_after, _RETRY)) from error
        self._note("")
        return self._keep(digest, described)

    async def _describe(self, token: str) -> Described | None:
        async with self._at_once:
            return await self._keystone.describe(token)

    def _keep(self, digest: bytes, described: Described | None) -> _Answer:
        """Cache an answer, and return it."""
        if described is None or described.project is None:
            wrong = Unauthorized if described is None else TokenWithoutProject
            self._put(self._wrong, digest, wrong, min(_WRONG_SECONDS, self._lifetime))
            return wrong
        roles = frozenset(role.name for role in described.roles)
        caller = Caller(described.user.id, described.project.id, roles)
        left = self._keystone.seconds_left(described)
        self._put(self._right, digest, caller, min(left, self._lifetime))
        return caller

    def _put(self, cache: _Cache, digest: bytes, answer: _Answer, seconds: float) -> None:
        if seconds > 0:
            cache[digest] = _Kept(answer, self._reactor.seconds() + seconds)

    def _note(self, failure: str) -> None:
        """Log a change in Keystone's state, once for all callers."""
        if failure and failure != self._failure:
            self._log.warn("no token can be validated: {failure}", failure=failure)
        elif self._failure and not failure:
            self._log.info("tokens are validated again")
        self._failure = failure


def _timed_out(_result: object, timeout: float) -> Described:
    raise SourceFailed(f"Keystone took longer than {timeout:g} seconds.")
