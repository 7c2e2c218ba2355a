"""The access log: one short line a request, with few lines for unauthenticated clients.

So strangers cannot fill the disk with log lines.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from bootvol.api.addresses import address, network
from bootvol.api.http import ApiRequest, path_for_log, printable
from bootvol.errors import BootvolError
from bootvol.sparing import FewLines

_log = Logger()


class AccessLog:
    """The writer of the access log's lines.

    A line shows no headers, and no query, because a query may hold a secret.  The query of a URL in
    the path is left out, too.

    :param clock: the reactor.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._strangers = FewLines(clock, _log, "requests without a valid token")

    def answered(self, request: ApiRequest) -> None:
        """Write the line of an answered request."""
        if request.tenant is None and not self._strangers.admit():
            return
        _log.info(
            "{address} {request_id} {tenant} {method} {path}: {status}{reason}, {length} bytes",
            address=address(request) or "-",
            request_id=request.request_id,
            tenant=request.tenant or "-",
            method=printable(request.method),
            path=path_for_log(request),
            status=request.code,
            reason=request.reason,
            length=request.sentLength,
        )

    def refused(self, peer: object, error: BootvolError) -> None:
        """Write the line of a request that was refused before it was read.

        :param peer: the client's address.
        """
        if self._strangers.admit():
            found = network(str(getattr(peer, "host", "")))
            _log.info("{address}: {error}", address=found or "-", error=error)

    def stop(self) -> None:
        """End the current period of the limit on lines."""
        self._strangers.stop()
