"""The interface of identity services.  An identity service finds the caller of a token."""

from __future__ import annotations

from zope.interface import Interface

from bootvol.model import Caller


class IIdentity(Interface):
    """A service that finds the caller of a token.

    If people log in through bootvol itself, the service also provides
    :class:`bootvol.login.ILogin`.
    """

    async def authenticate(token: str) -> Caller:
        """Return the caller of ``token``.

        If the service already knows the answer, return without waiting.  Each client address has
        only a few places for calls of unknown callers, and a waiting call takes one of these
        places.  If too many calls wait, the core cancels the call.  A cancelled call should leave
        nothing behind in any queue.

        :param token: text from a client: hostile until proven otherwise.
        :returns: the caller, with the token included if the core may show the token to image
            sources.
        :raises bootvol.errors.Unauthorized: if the token is invalid or has expired.
        :raises bootvol.errors.IdentityUnavailable: if the service cannot tell for now.
        """
