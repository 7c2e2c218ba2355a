"""Makes room for a request at a server that limits the connections of one address.

The further connections of one import may be all that such a server allows.  Then the server refuses
each other request: the search for an image, its list of digests, and other imports.  These requests
count more than the speed of one import.
"""

from __future__ import annotations

from typing import Final, Protocol
from weakref import WeakValueDictionary

from twisted.web.iweb import IResponse

#: Statuses of servers that allow no further connection.  (Servers that answer 403 instead cannot be
#: told from those that refuse an image.)
_CROWDED: Final = frozenset({429, 503})


class Wide(Protocol):
    """A stream that may use several connections.

    :ivar width: number of connections.
    """

    @property
    def width(self) -> int: ...

    def narrow(self) -> None:
        """End all connections but one, and have only this one for a while."""


class Crowd:
    """The streams with URLs of one host that may use several connections."""

    def __init__(self) -> None:
        self._streams: set[Wide] = set()

    def enter(self, stream: Wide) -> None:
        """Count a stream."""
        self._streams.add(stream)

    def leave(self, stream: Wide) -> None:
        """Forget a stream.  Idempotent."""
        self._streams.discard(stream)

    def make_room(self) -> bool:
        """Narrow the stream with the most connections; return whether a stream had several."""
        widest = max(self._streams, key=lambda each: each.width, default=None)
        if widest is None or widest.width <= 1:
            return False
        widest.narrow()
        return True


class Crowds:
    """The crowds of one source, while streams are in them."""

    def __init__(self) -> None:
        self._of: WeakValueDictionary[str, Crowd] = WeakValueDictionary()

    def of(self, host: str) -> Crowd:
        """Return the crowd of a host."""
        return self._of.setdefault(host, Crowd())


def is_crowded(response: IResponse) -> bool:
    """Tell whether a server may refuse a request for the number of connections."""
    return response.code in _CROWDED
