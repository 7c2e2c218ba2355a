"""Whose call it is that uses the database: tenants take turns there."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context, ContextVar
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

#: The tenant whose call runs; None is the daemon's own work.  Each coroutine that Twisted runs has
#: a context of its own, a copy of the one that it was started in (PEP 567).
ASKER: Final[ContextVar[str | None]] = ContextVar("asker", default=None)


def as_daemon(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Make a call as the daemon's own work, whatever tenant's call it is made in."""
    return Context().run(call, *args, **kwargs)
