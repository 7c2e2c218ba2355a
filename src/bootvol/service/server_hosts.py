"""The reasons why work on servers, and on their volumes, has to wait for a daemon."""

from __future__ import annotations

import attrs
from sqlalchemy import Connection as Db

from bootvol.errors import DaemonAway, ErrorReport, HostAway, HostRunsNoServers
from bootvol.lifecycle import POWERING, Status
from bootvol.model import Server
from bootvol.store import daemons
from bootvol.store import servers as server_rows

#: Statuses of servers in work.
_WORKED_ON = POWERING | {Status.CREATING, Status.DELETING}


def with_reason(db: Db, server: Server, own: str) -> Server:
    """Return a server; while the server waits for the operator, with the reason as its error.

    :param own: id of this daemon.
    """
    if server.status not in _WORKED_ON:
        return server
    reason = of_daemon(db, server.daemon, own)
    if reason is None and server.status is Status.CREATING:
        reasons = (_of_host(db, host) for host in server_rows.hosts(db, server.id))
        reason = next(filter(None, reasons), None)
    return server if reason is None else attrs.evolve(server, error=reason)


def of_daemon(db: Db, daemon: str | None, own: str) -> ErrorReport | None:
    """Return why work that belongs to one daemon has to wait; None if that daemon runs.

    :param daemon: id of the only daemon that can do the work; None if any daemon can.
    :param own: id of this daemon.
    """
    if daemon in (None, own) or daemons.runs(db, daemon):
        return None
    return DaemonAway(daemons.host_of(db, daemon)).report()


def _of_host(db: Db, host: str) -> ErrorReport | None:
    if not daemons.runs_on(db, host):
        return HostAway(host).report()
    if not daemons.runs_on(db, host, serving=True):
        return HostRunsNoServers(host).report()
    return None
