"""Logs people in, and knows them again by the tokens that it gave them."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from datetime import UTC, datetime
from hashlib import sha256
from ipaddress import ip_address, ip_network
from typing import Final

import attrs
from twisted.internet.defer import DeferredSemaphore
from twisted.logger import Logger
from zope.interface import implementer

from bootvol import passwords
from bootvol.errors import LoginFailed, TooManyLogins, Unauthorized
from bootvol.interfaces import IIdentity, IReloadable, PluginContext
from bootvol.login import (
    AccessKey,
    Credentials,
    EarlierToken,
    ILogin,
    Named,
    Password,
    Session,
    Which,
)
from bootvol.model import Caller
from bootvol_plugins.embedded import files
from bootvol_plugins.embedded.options import EmbeddedOptions, UserTable
from bootvol_plugins.embedded.revoked import Revoked
from bootvol_plugins.embedded.throttle import Throttle
from bootvol_plugins.embedded.tokens import Claims, Tokens

#: Passwords that are verified at once: each takes a processor and its hash's memory meanwhile.
_AT_ONCE: Final = 2
#: How many more may wait for that; they take about a second.
_WAITING: Final = 32
#: How many tokens may be got by one another; a token names all before it.
_GENERATIONS: Final = 16


@attrs.frozen
class _User:
    """A user.

    :ivar roles: by the projects' ids.
    :ivar methods: how the user may log in, by the fingerprints of the credentials.
    """

    named: Named
    roles: dict[str, frozenset[str]]
    methods: dict[str, str]


@attrs.frozen
class _Secret:
    """What is kept of a password or a secret key, and whose it is."""

    user: _User
    kept: str


@implementer(IIdentity, ILogin, IReloadable)
class EmbeddedIdentity:
    """Users, projects and access keys as the configuration says."""

    _log = Logger()

    def __init__(self, options: EmbeddedOptions, context: PluginContext) -> None:
        """Blocks on the disk.

        :raises bootvol.errors.ConfigurationError: what it must remember cannot be read or kept.
        """
        self._now = context.now
        self._threads = context.threads
        self._tokens = Tokens(files.signing_key(options.directory, options.key_file))
        self._revoked = Revoked(options.directory / "revoked", context.threads, self._now)
        self._throttle = Throttle(context.reactor.seconds)
        self._addresses = (
            Throttle(context.reactor.seconds, options.address_failures)
            if options.address_failures
            else None
        )
        self._verifying = DeferredSemaphore(_AT_ONCE)
        self._use(options)

    def _use(self, options: EmbeddedOptions) -> None:
        self._lifetime = int(options.token_hours * 3600)
        self._projects = {each.id: Named(each.id, each.name) for each in options.projects}
        self._users: dict[str, _User] = {}
        self._passwords: dict[str, _Secret] = {}
        self._keys: dict[str, _Secret] = {}
        for each in options.users:
            self._add(each)
        # What is verified where there is nothing to verify: it must take as long.
        self._decoy = next(iter([*self._passwords.values(), *self._keys.values()])).kept

    async def reload(self, settings: EmbeddedOptions) -> None:
        """See :meth:`bootvol.interfaces.IReloadable.reload`.

        Users, projects and ``token_hours`` change; what was revoked stays so, and failed log-ins
        still count.  Tokens end whose user, project or credential is gone.
        """
        self._use(settings)

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
        await self._revoked.add(self._claims(token), self._lifetime)

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
        return self._session(self._tokens.write(claims), claims)

    async def _prove(self, credentials: Password | AccessKey, address: str) -> _Secret:
        """Return what the credentials are right for.

        :raises LoginFailed: nothing.
        :raises TooManyLogins: it was not looked at.
        """
        claimed: object
        if isinstance(credentials, Password):
            user = _find(credentials.user, [each.named for each in self._users.values()])
            secret = self._passwords.get(user.id) if user else None
            given, claimed = credentials.password, user or credentials.user
        else:
            secret = self._keys.get(credentials.key)
            given, claimed = credentials.secret, credentials.key
        # A digest is small, whatever was sent.
        network = _network(address).encode("utf-8", "surrogatepass")
        key = sha256(repr((claimed, network)).encode("utf-8", "surrogatepass")).digest()
        if not await self._is_right(key, network, secret, given) or secret is None:
            who = secret.user.named.id if secret else "somebody unknown"
            self._log.warn("{who} failed to log in from {address}", who=who, address=address)
            raise LoginFailed
        return secret

    async def _is_right(
        self, key: bytes, network: bytes, secret: _Secret | None, given: str
    ) -> bool:
        """Verify what was given, when it is its turn.

        :param key: under which failures of one user from one network are counted.
        :raises TooManyLogins: it was not looked at.
        """
        self._check(key, network)
        if len(self._verifying.waiting) >= _WAITING:
            raise TooManyLogins(1.0)
        await self._verifying.acquire()
        try:
            # Others like it may have failed meanwhile.
            self._check(key, network)
            kept = secret.kept if secret else self._decoy
            right = await self._threads.run(passwords.verify, kept, given) and secret is not None
            # Before it is anybody else's turn.
            if right:
                self._throttle.succeeded(key)
            else:
                self._throttle.failed(key)
                # Whoever comes by a unix socket has no address.
                if network and self._addresses:
                    self._addresses.failed(network)
            return right
        finally:
            self._verifying.release()

    def _check(self, key: bytes, network: bytes) -> None:
        """Return if a try is allowed by now.

        :raises TooManyLogins: not yet.
        """
        self._throttle.check(key)
        if self._addresses:
            self._addresses.check(network)

    def _project(self, user: _User, asked: Which) -> str:
        """Return the id of a project that a user may log in to."""
        found = _find(asked, self._open_to(user))
        if found is None:
            raise LoginFailed
        return found.id

    def _open_to(self, user: _User) -> tuple[Named, ...]:
        return tuple(each for each in self._projects.values() if each.id in user.roles)

    def _claims(self, token: str) -> Claims:
        """Return what a token says, if all of that still holds.

        :raises Unauthorized: it does not.
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


def _network(address: str) -> str:
    """Return an address, or of IPv6 the network that one host may have all addresses of."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    return str(ip_network((found, 64), strict=False)) if found.version == 6 else address


def _find(asked: Which, among: Iterable[Named]) -> Named | None:
    """Return what is meant by id or by name, or by both."""
    if asked.id is None and asked.name is None:
        return None
    for each in among:
        if asked.id in (None, each.id) and asked.name in (None, each.name):
            return each
    return None
