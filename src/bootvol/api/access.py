"""The access log: one short line a request; strangers cannot fill the disk with them."""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from bootvol.api.http import ApiRequest, address, network, printable
from bootvol.errors import BootvolError

#: The most lines for requests without a valid token in :data:`PERIOD`; the log counts the others.
MOST: Final = 100
#: Seconds.
PERIOD: Final = 10

_log = Logger()


class AccessLog:
    """Writes the lines.

    A line has no query, since a secret may be in the query, and no header of the request.

    :param clock: the reactor.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._left = MOST
        self._omitted = 0
        #: Ends the period.
        self._ending: Any = None

    def answered(self, request: ApiRequest) -> None:
        """Write the line of a request that has its answer."""
        if request.tenant is None and not self._admit():
            return
        _log.info(
            "{address} {request_id} {tenant} {method} {path}: {status}{reason}, {length} bytes",
            address=address(request) or "-",
            request_id=request.request_id,
            tenant=request.tenant or "-",
            method=printable(request.method),
            path=printable(request.path),
            status=request.code,
            reason=request.reason,
            length=request.sentLength,
        )

    def refused(self, peer: object, error: BootvolError) -> None:
        """Write the line of a request that was not even read.

        :param peer: the client's address.
        """
        if self._admit():
            found = network(str(getattr(peer, "host", "")))
            _log.info("{address}: {error}", address=found or "-", error=error)

    def stop(self) -> None:
        """End the period."""
        if self._ending is not None:
            self._ending.cancel()
            self._ended()

    def _admit(self) -> bool:
        """Return whether a line may be written for a client without a valid token."""
        if self._ending is None:
            self._ending = self._clock.callLater(PERIOD, self._ended)
        if not self._left:
            self._omitted += 1
            return False
        self._left -= 1
        return True

    def _ended(self) -> None:
        self._ending = None
        if self._omitted:
            _log.info(
                "{count} more requests without a valid token in {period} seconds",
                count=self._omitted,
                period=PERIOD,
            )
        self._left, self._omitted = MOST, 0
