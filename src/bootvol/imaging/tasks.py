"""Coroutines that live and end together."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList, FirstError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from bootvol.threads import outlast


async def together(clock: IReactorTime, *coroutines: Coroutine[Deferred[Any], Any, None]) -> None:
    """Run coroutines at once, until all have ended.

    When one raises, the others are cancelled, and that error is raised once they have ended too;
    when this is cancelled, so are they.  None is left running in any case.
    """
    tasks = [Deferred.fromCoroutine(coroutine) for coroutine in coroutines]
    error: BaseException | None = None
    try:
        await DeferredList(tasks, fireOnOneErrback=True, consumeErrors=True)
    except FirstError as first:
        error = first.subFailure.value
    except CancelledError as cancelled:
        error = cancelled
    if error is not None:
        await outlast(Deferred.fromCoroutine(_end(clock, tasks)))
        raise error


async def _end(clock: IReactorTime, tasks: list[Deferred[None]]) -> None:
    # The one that failed may have been woken by another, which is then still on the stack, and
    # what runs cannot be cancelled: let it come to its next await.
    await deferLater(clock, 0, lambda: None)
    for task in tasks:
        task.cancel()
    await DeferredList(tasks, consumeErrors=True)
