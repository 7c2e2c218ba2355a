"""Gives up the sessions of a PostgreSQL server that takes no writes.

A session that began on a read-only server may stay read-only after the server takes writes again.
After a failover, a session may lead to a standby.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Engine, event
from sqlalchemy.engine.interfaces import ExceptionContext

#: The error code of a write in a read-only transaction (PostgreSQL's manual, appendix A).
READ_ONLY: Final = "25006"


def watch(engine: Engine) -> None:
    """Make later transactions use new sessions after a refused write."""
    event.listen(engine, "handle_error", _failed)


def _failed(context: ExceptionContext) -> None:
    if getattr(context.original_exception, "sqlstate", None) == READ_ONLY:
        context.is_disconnect = True
