"""The factory of the API's connections, with limits on all connections together."""

from __future__ import annotations

from collections import Counter, OrderedDict
from io import BytesIO
from typing import Any, Final

from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.web.server import Site

from bootvol.api.access import AccessLog
from bootvol.api.channels import IDLE, LARGEST_BODY, ApiChannel
from bootvol.api.http import ApiRequest
from bootvol.api.root import ApiRoot
from bootvol.errors import BodyTooLarge
from bootvol.fair_share import Paced

#: Maximum number of bytes of unread answers on all connections together. A single answer may be
#: larger.
MOST_UNREAD: Final = 64 * 1024 * 1024


class BoundedRequest(ApiRequest):
    """A request that buffers at most :data:`LARGEST_BODY` bytes of its body."""

    channel: ApiChannel
    content: BytesIO

    def handleContentChunk(self, data: bytes) -> None:
        """Buffer or stream a part of the body, or refuse a body that is too large."""
        if self.channel.upload is not None:
            self.channel.upload.take(data)
        elif self.content.tell() + len(data) > LARGEST_BODY:
            self.channel.refuse(BodyTooLarge())
        else:
            super().handleContentChunk(data)


class ApiSite(Site):
    """The factory of the API's connections.

    :param connections: maximum number of connections at once.
    :param spare: maximum number of additional connections while all connections have requests in
        progress; never more than ``connections``.  Requests on additional connections are refused.
    :ivar pace: paces the parsing of input, in turns of clients' addresses.
    """

    # Twisted's own would choose between HTTP/1.1 and 2.
    protocol = ApiChannel  # type: ignore[assignment]

    def __init__(self, root: ApiRoot, reactor: IReactorTime, connections: int, spare: int) -> None:
        # No call takes a form, so forms are not parsed.
        super().__init__(
            root,
            requestFactory=BoundedRequest,
            timeout=IDLE,
            parsePOSTFormSubmission=False,
            reactor=reactor,
        )
        self.access = AccessLog(reactor)
        self.pace = Paced(reactor)
        self._most = connections
        self._spare = min(spare, connections)
        self._working: set[ApiChannel] = set()
        #: Idle connections (without a request in progress), longest idle first.
        self._waiting: OrderedDict[ApiChannel, None] = OrderedDict()
        #: Bytes of the last answer of each connection whose client has not read it, oldest first.
        self._unread: dict[ApiChannel, int] = {}

    def getContentFile(self, _length: int | None) -> BytesIO:  # noqa: N802 (Twisted's name)
        """Return a buffer for a body: Twisted's own is a file, one more for each connection."""
        return BytesIO()

    def log(self, request: Any) -> None:
        """Write a line of the access log."""
        self.access.answered(request)

    def stopFactory(self) -> None:
        """End the access log's period, and stop."""
        self.access.stop()
        super().stopFactory()

    def acceptableProtocols(self) -> list[bytes]:
        """Return HTTP/1.1 as the only protocol for TLS: these limits do not apply to HTTP/2."""
        return [b"http/1.1"]

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Return a new connection; end idle connections beyond the limit."""
        while len(self._waiting) >= max(self._most - self.at_work, self._spare):
            self._make_room()
        return super().buildProtocol(addr)

    def _make_room(self) -> None:
        """End the longest idle connection of the address with the most idle connections."""
        longest = _greediest(dict.fromkeys(self._waiting, 1))
        del self._waiting[longest]
        longest.end()

    @property
    def at_work(self) -> int:
        """The number of connections with a request in progress."""
        return len(self._working)

    @property
    def is_full(self) -> bool:
        """True if the number of requests in progress has reached the limit."""
        return self.at_work >= self._most

    def waiting(self, channel: ApiChannel) -> None:
        """Count a connection as idle."""
        self._working.discard(channel)
        self._waiting[channel] = None

    def working(self, channel: ApiChannel) -> None:
        """Count a connection as one with a request in progress."""
        self._waiting.pop(channel, None)
        self._working.add(channel)

    def gone(self, channel: ApiChannel) -> None:
        """Forget a closed connection."""
        self._waiting.pop(channel, None)
        self._working.discard(channel)
        self.read(channel)

    def unread(self, channel: ApiChannel, length: int) -> None:
        """Note an unread answer; close connections while unread answers exceed the limit.

        :param length: length of the answer in bytes.
        """
        self._unread[channel] = length
        while len(self._unread) > 1 and sum(self._unread.values()) > MOST_UNREAD:
            dropped = _greediest(self._unread)
            self.read(dropped)
            dropped.end()

    def read(self, channel: ApiChannel) -> None:
        """Note that a client has read most of the last answer."""
        self._unread.pop(channel, None)


def _greediest(taken: dict[ApiChannel, int]) -> ApiChannel:
    """Return the first connection of the address with the largest sum.

    :param taken: the amount of each connection; not empty.
    """
    addresses: Counter[str] = Counter()
    for channel, much in taken.items():
        addresses[channel.address] += much
    most = max(addresses.values())
    return next(each for each in taken if addresses[each.address] == most)
