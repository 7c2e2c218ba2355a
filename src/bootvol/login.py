"""Logging in through bootvol itself: what an identity plugin may provide beside ``IIdentity``.

The rules of :mod:`bootvol.interfaces` hold here, too.
"""

from __future__ import annotations

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
    """Which user or project a client means: it gives the id or the name."""

    id: str | None = None
    name: str | None = None


@attrs.frozen
class Password:
    """What people log in with."""

    user: Which
    password: str = attrs.field(repr=False)


@attrs.frozen
class AccessKey:
    """What programs log in with: a key that tells whose it is, and its secret."""

    key: str
    secret: str = attrs.field(repr=False)


@attrs.frozen
class EarlierToken:
    """What somebody who is logged in already goes on to another project with."""

    token: str = attrs.field(repr=False)


Credentials = Password | AccessKey | EarlierToken


@attrs.frozen
class Session:
    """What a token stands for.

    :ivar project: what it is for; None is none.
    :ivar projects: those that its user may log in to.
    :ivar roles: the user's in the project.
    :ivar method: ``password`` or ``access-key``: how its user logged in.
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
    """What an identity service provides, too, where people log in through bootvol itself.

    Nothing that is wrong with credentials tells which part of them it was, neither by the error
    nor by the time that it takes.
    """

    async def login(credentials: Credentials, project: Which | None, address: str) -> Session:
        """Give out a token; one that is for a project is known to ``IIdentity.authenticate``.

        An implementation bounds how many log-ins wait, and lets addresses take turns.

        :param credentials: as a client sent them: hostile until proven otherwise.
        :param project: what the token is to be for; None gives one that is for no project, and
            serves only to list the projects and to log in to one of them.
        :param address: the client's, by which too many failures are slowed down: an IPv4 address,
            a network of IPv6 (``2001:db8::/64``), or empty (a unix socket).
        :raises bootvol.errors.LoginFailed: they are wrong, or give no access to the project.
        :raises bootvol.errors.TooManyLogins: try again later.
        """

    async def session(token: str) -> Session:
        """Return what a token that :meth:`login` gave out stands for by now.

        :param token: hostile until proven otherwise.
        :raises bootvol.errors.Unauthorized: it is not, or no longer, valid.
        """

    async def revoke(token: str) -> None:
        """End a token before its time, and those that were got by it.

        When it returns, that survives a restart.

        :raises bootvol.errors.Unauthorized: it is not, or no longer, valid.
        :raises bootvol.errors.IdentityFailed: it counts as ended, but will not after a restart.
        """
