"""The contract of logins through bootvol itself, an optional part of an identity plugin.

The rules of :mod:`bootvol.interfaces` apply here as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import attrs
from zope.interface import Interface


@attrs.frozen
class Named:
    """A user or a project."""

    id: str
    name: str


@attrs.frozen
class Which:
    """A reference to a user or a project by id, by name, or by both."""

    id: str | None = None
    name: str | None = None


@attrs.frozen
class Password:
    """The credentials of a person."""

    user: Which
    password: str = attrs.field(repr=False)


@attrs.frozen
class AccessKey:
    """The credentials of a program: a key that identifies the user, and its secret."""

    key: str
    secret: str = attrs.field(repr=False)


@attrs.frozen
class EarlierToken:
    """The token of a user who is already logged in, used to log in to another project."""

    token: str = attrs.field(repr=False)


Credentials = Password | AccessKey | EarlierToken


@attrs.frozen
class Session:
    """The session of a token.

    :ivar project: the token's project; None for a token without a project.
    :ivar projects: all projects that the user may log in to.
    :ivar roles: the user's roles in ``project``.
    :ivar method: the user's login method: ``password`` or ``access-key``.
    """

    token: str = attrs.field(repr=False)
    user: Named
    project: Named | None
    projects: tuple[Named, ...]
    roles: frozenset[str]
    method: str
    issued_at: datetime
    expires_at: datetime


class ILogin(Interface):
    """Optional interface of an identity service that logs people in through bootvol itself.

    A failed login does not reveal which part of the credentials was wrong: errors and response
    times are the same for all parts.
    """

    async def login(credentials: Credentials, project: Which | None, address: str) -> Session:
        """Issue a token.  ``IIdentity.authenticate`` accepts the token if it is for a project.

        An implementation bounds the number of waiting logins, and gives fair shares to addresses.

        :param credentials: data from a client: hostile until proven otherwise.
        :param project: the project of the token.  None issues a token without a project.  Such a
            token serves only to list the projects and to log in to one of them.
        :param address: the client's address.  Too many failures from one address are delayed.  The
            value is an IPv4 address, an IPv6 network (``2001:db8::/64``), or empty (a unix socket).
        :raises bootvol.errors.LoginFailed: if the credentials are wrong, or give no access to the
            project.
        :raises bootvol.errors.TooManyLogins: if the client should try again later.
        """

    async def session(token: str) -> Session:
        """Return the current session of a token from :meth:`login`.

        :param token: hostile until proven otherwise.
        :raises bootvol.errors.Unauthorized: if the token is invalid or has expired.
        """

    async def revoke(token: str) -> None:
        """Revoke a token, and all tokens obtained from it.

        When the call returns, the revocation survives a restart.

        :raises bootvol.errors.Unauthorized: if the token is invalid or has expired.
        :raises bootvol.errors.IdentityFailed: if the revocation could not be stored.  The token is
            revoked until the next restart.
        """


class IKnowingLogin(ILogin):
    """Optional interface of an identity service that knows all users and projects."""

    def users() -> Sequence[Named]:
        """Return all users."""

    def projects() -> Sequence[Named]:
        """Return all projects."""
