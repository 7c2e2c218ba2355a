"""The tenant whose call uses the database.  Tenants take turns at the database."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context, ContextVar
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

#: The tenant whose call runs; None for the daemon's own work.  Each coroutine that Twisted runs has
#: its own context: a copy of the context in which the coroutine started (PEP 567).
ASKER: Final[ContextVar[str | None]] = ContextVar("asker", default=None)


def as_daemon(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Make a call as the daemon's own work, even during the call of a tenant."""
    return Context().run(call, *args, **kwargs)
