"""Identity services, which say whom a token belongs to."""

from __future__ import annotations

from zope.interface import Interface

from bootvol.model import Caller


class IIdentity(Interface):
    """Says who a token belongs to.

    Where people log in through bootvol itself it provides :class:`bootvol.login.ILogin`, too.
    """

    async def authenticate(token: str) -> Caller:
        """Return whom ``token`` speaks for.

        Whatever is known without waiting is returned without waiting: that takes no place of the
        few that a client's address has for calls of which nobody knows yet who makes them.  Where
        too many wait, the call is cancelled, and should leave nothing in any line then.

        :param token: as a client sent it: hostile until proven otherwise.
        :returns: with the token in it, if that is one which image sources may be shown.
        :raises bootvol.errors.Unauthorized: it is not, or no longer, valid.
        :raises bootvol.errors.IdentityUnavailable: that cannot be told for now.
        """
