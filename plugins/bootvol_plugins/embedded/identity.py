"""The identity service: logs users in, and finds the caller of each token."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Final

import attrs
from twisted.logger import Logger
from zope.interface import implementer

from bootvol import passwords
from bootvol.errors import ConfigurationError, LoginFailed, Unauthorized
from bootvol.interfaces import IIdentity, IReloadable, PluginContext
from bootvol.login import (
    AccessKey,
    Credentials,
    EarlierToken,
    IKnowingLogin,
    Named,
    Password,
    Session,
    Which,
)
from bootvol.model import Caller
from bootvol.sparing import FewLines
from bootvol_plugins.embedded.key import signing_key
from bootvol_plugins.embedded.known import Known
from bootvol_plugins.embedded.options import EmbeddedOptions, UserTable
from bootvol_plugins.embedded.revoked import Revoked
from bootvol_plugins.embedded.throttle import Throttle
from bootvol_plugins.embedded.tokens import Claims, Tokens
from bootvol_plugins.embedded.turns import Turns

#: Number of concurrent password verifications.  Each uses a processor, and memory for the hash.
_AT_ONCE: Final = 2
#: Number of logins that may wait for a verification, with as many again of users who logged in
#: before.  The wait takes about a second.
_WAITING: Final = 32
#: Longest chain of tokens, each obtained from the one before.  A token names all tokens before it.
_GENERATIONS: Final = 16
#: Number of failures of one user, from all addresses together, that cause no delay.
_GUESSES: Final = 100


@attrs.frozen
class _User:
    """A user of the configuration.

    :ivar roles: the user's roles by project id.
    :ivar methods: the user's login methods by fingerprint of the credentials.
    """

    named: Named
    roles: dict[str, frozenset[str]]
    methods: dict[str, str]


@attrs.frozen
class _Secret:
    """The stored hash of a password or a secret key, with its user."""

    user: _User
    kept: str


@attrs.frozen
class _Guess:
    """An unverified password or secret key.

    :ivar network: the client's network; empty for a unix socket.
    :ivar user: digest of the claimed user or access key, as the client sent it.
    """

    network: bytes
    user: bytes

    @property
    def both(self) -> bytes:
        """The key of this user from this network: all keys of the user begin alike."""
        half = len(self.user) // 2
        return self.user[:half] + _digest(self.network, self.user)[:half]


@implementer(IIdentity, IKnowingLogin, IReloadable)
class EmbeddedIdentity:
    """The users, projects and access keys of the configuration."""

    _log = Logger()

    def __init__(self, options: EmbeddedOptions, context: PluginContext) -> None:
        """Load the signing key and the revoked tokens.  Blocks on the disk.

        :raises bootvol.errors.ConfigurationError: if the plugin cannot read or store its state.
        """
        self._now = context.now
        self._threads = context.threads
        self._directory, self._lasting = options.directory, _lasting(options)
        self._tokens = Tokens(signing_key(options.directory, options.key_file))
        self._revoked = Revoked(
            options.directory / "revoked",
            context.threads,
            self._now,
            context.reactor.seconds,
            _lifetime(options),
        )
        self._throttle = Throttle(context.reactor.seconds)
        self._addresses = (
            Throttle(context.reactor.seconds, options.address_failures)
            if options.address_failures
            else None
        )
        self._guesses = Throttle(context.reactor.seconds, _GUESSES)
        #: Users and networks of successful logins.  Guesses from elsewhere do not delay these.
        self._known = Known(options.directory / "known", context.threads)
        self._turns = Turns(_AT_ONCE, _WAITING)
        self._failures = FewLines(context.reactor, self._log, "failed log-ins")
        self._use(options)

    def _use(self, options: EmbeddedOptions) -> None:
        self._lifetime = _lifetime(options)
        self._projects = {each.id: Named(each.id, each.name) for each in options.projects}
        self._users: dict[str, _User] = {}
        self._passwords: dict[str, _Secret] = {}
        self._keys: dict[str, _Secret] = {}
        for each in options.users:
            self._add(each)
        secrets_kept = [*self._passwords.values(), *self._keys.values()]
        # The hash to verify for an unknown user.  The answer must take as long as for a known user.
        self._decoy = max((each.kept for each in secrets_kept), key=passwords.cost)
        for secret in secrets_kept:
            if passwords.cost(secret.kept) != passwords.COST:
                self._log.warn(
                    "a hash of user {user} takes another time than a new hash. Make a new one with"
                    " `bootvol hash-password`, so that the time of an answer reveals no user names",
                    user=secret.user.named.name,
                )

    async def reload(self, settings: EmbeddedOptions) -> None:
        """See :meth:`bootvol.interfaces.IReloadable.reload`.

        Users, projects, ``token_hours`` and the signing key change.  Revoked tokens stay revoked,
        and failed logins still count.  A token ends if its user, project or credential was removed,
        or if the key changed.
        """
        if settings.key_file is not None:
            await self._use_key(settings.key_file)
        self._use(settings)
        if _lasting(settings) != self._lasting:
            self._log.warn(
                "changed, and applied by a restart only: directory, address_failures or key_file of"
                " identity"
            )

    async def _use_key(self, file: Path) -> None:
        try:
            key = await self._threads.run(signing_key, self._directory, file)
        except ConfigurationError as error:
            # A key that cannot be read must not keep the tokens of removed users valid.
            self._log.error("the signing key stays as it was: {error}", error=error)
        else:
            self._tokens = Tokens(key)

    def _add(self, table: UserTable) -> None:
        ids = {each.name: each.id for each in self._projects.values()}
        roles = {ids[name]: frozenset(given) for name, given in table.roles.items()}
        user = _User(Named(table.id, table.name), roles, {})
        self._users[table.id] = user
        if table.password_hash is not None:
            self._passwords[table.id] = _Secret(user, table.password_hash)
            user.methods[self._tokens.fingerprint(table.password_hash)] = "password"
        for each in table.access_keys:
            self._keys[each.key] = _Secret(user, each.secret_hash)
            user.methods[self._tokens.fingerprint(each.secret_hash)] = "access-key"

    def users(self) -> Sequence[Named]:
        """See :meth:`bootvol.login.IKnowingLogin.users`."""
        return [each.named for each in self._users.values()]

    def projects(self) -> Sequence[Named]:
        """See :meth:`bootvol.login.IKnowingLogin.projects`."""
        return list(self._projects.values())

    async def authenticate(self, token: str) -> Caller:
        """See :meth:`bootvol.interfaces.IIdentity.authenticate`."""
        session = self._session(token, self._claims(token))
        if session.project is None:
            raise Unauthorized
        return Caller(session.user.id, session.project.id, session.roles)

    async def session(self, token: str) -> Session:
        """See :meth:`bootvol.interfaces.ILogin.session`."""
        return self._session(token, self._claims(token))

    async def revoke(self, token: str) -> None:
        """See :meth:`bootvol.interfaces.ILogin.revoke`."""
        await self._revoked.add(self._claims(token))

    async def login(self, credentials: Credentials, project: Which | None, address: str) -> Session:
        """See :meth:`bootvol.interfaces.ILogin.login`."""
        now = int(self._now())
        if isinstance(credentials, EarlierToken):
            try:
                earlier = self._claims(credentials.token)
            except Unauthorized:
                raise LoginFailed from None
            if len(earlier.ancestors) >= _GENERATIONS:
                raise LoginFailed
            user, credential = self._users[earlier.user], earlier.credential
            expires = earlier.expires
            ancestors = (*earlier.ancestors, earlier.nonce)
        else:
            secret = await self._prove(credentials, address)
            user, credential = secret.user, self._tokens.fingerprint(secret.kept)
            expires = now + self._lifetime
            ancestors = ()
        claims = Claims(
            user.named.id,
            None if project is None else self._project(user, project),
            max(now, self._revoked.earliest(user.named.id)),
            expires,
            credential,
            secrets.token_urlsafe(12),
            ancestors,
        )
        try:
            # The configuration may have changed during the verification.
            return await self.session(self._tokens.write(claims))
        except Unauthorized:
            raise LoginFailed from None

    async def _prove(self, credentials: Password | AccessKey, address: str) -> _Secret:
        """Return the secret that the credentials match.

        :raises LoginFailed: if the credentials match nothing.
        :raises TooManyLogins: if the credentials were not verified.
        """
        # Count by the name that the client sent.  Delays of known users alone would reveal them.
        claimed: tuple[str, object]
        if isinstance(credentials, Password):
            user = _find(credentials.user, [each.named for each in self._users.values()])
            secret = self._passwords.get(user.id) if user else None
            given = credentials.password
            claimed = "user", credentials.user.id or credentials.user.name
        else:
            secret = self._keys.get(credentials.key)
            given, claimed = credentials.secret, ("key", credentials.key)
        guess = _Guess(address.encode("utf-8", "surrogatepass"), _digest(*claimed))
        if not await self._is_right(guess, secret, given) or secret is None:
            if self._failures.admit():
                who = secret.user.named.id if secret else "somebody unknown"
                self._log.warn("{who} failed to log in from {address}", who=who, address=address)
            raise LoginFailed
        return secret

    async def _is_right(self, guess: _Guess, secret: _Secret | None, given: str) -> bool:
        """Wait for a turn, then verify the given secret.

        :raises TooManyLogins: if the secret was not verified.
        """
        self._check(guess)
        known = guess.both in self._known
        # Fair shares are by user for users who logged in before, and by network for all others.
        async with self._turns.turn(
            guess.user if known else guess.network, guess.user, known=known
        ):
            # Similar logins may have failed while this one waited.
            self._check(guess)
            kept = secret.kept if secret else self._decoy
            right = await self._threads.run(passwords.verify, kept, given) and secret is not None
            # Count the result before the next login gets its turn.
            if right:
                self._succeeded(guess)
            else:
                self._failed(guess)
            return right

    def _check(self, guess: _Guess) -> None:
        """Return if the next try is allowed now.

        :raises TooManyLogins: if the next try must wait.
        """
        self._throttle.check(guess.both)
        if self._addresses:
            self._addresses.check(guess.network)
        if guess.both not in self._known:
            self._guesses.check(guess.user)

    def _failed(self, guess: _Guess) -> None:
        self._throttle.failed(guess.both)
        # A client on a unix socket has no address.
        if guess.network and self._addresses:
            self._addresses.failed(guess.network)
        if guess.both not in self._known:
            self._guesses.failed(guess.user)

    def _succeeded(self, guess: _Guess) -> None:
        self._throttle.succeeded(guess.both)
        self._known.add(guess.both)

    def _project(self, user: _User, asked: Which) -> str:
        """Return the id of a project that the user may log in to."""
        found = _find(asked, self._open_to(user))
        if found is None:
            raise LoginFailed
        return found.id

    def _open_to(self, user: _User) -> tuple[Named, ...]:
        return tuple(each for each in self._projects.values() if each.id in user.roles)

    def _claims(self, token: str) -> Claims:
        """Return the claims of a token, if all of them still hold.

        :raises Unauthorized: if any claim no longer holds.
        """
        claims = self._tokens.read(token, self._now())
        user = self._users.get(claims.user)
        if user is None or claims.credential not in user.methods or claims in self._revoked:
            raise Unauthorized
        if claims.project is not None and claims.project not in user.roles:
            raise Unauthorized
        return claims

    def _session(self, token: str, claims: Claims) -> Session:
        user = self._users[claims.user]
        return Session(
            token,
            user.named,
            None if claims.project is None else self._projects[claims.project],
            self._open_to(user),
            user.roles.get(claims.project or "", frozenset()),
            user.methods[claims.credential],
            datetime.fromtimestamp(claims.issued, UTC),
            datetime.fromtimestamp(claims.expires, UTC),
        )


def _lasting(options: EmbeddedOptions) -> tuple[object, ...]:
    """Return the settings that only a restart changes."""
    return options.directory, options.address_failures, options.key_file is None


def _lifetime(options: EmbeddedOptions) -> int:
    """Return the lifetime of a token in seconds."""
    return int(options.token_hours * 3600)


def _digest(*values: object) -> bytes:
    """Return a digest of values from a client.  The digest is small for values of any size."""
    return sha256(repr(values).encode("utf-8", "surrogatepass")).digest()


def _find(asked: Which, among: Iterable[Named]) -> Named | None:
    """Return the entry with the given id, name, or both."""
    if asked.id is None and asked.name is None:
        return None
    for each in among:
        if asked.id in (None, each.id) and asked.name in (None, each.name):
            return each
    return None
