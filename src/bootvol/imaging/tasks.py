"""Coroutines that live and end together."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList, FirstError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater


async def together(clock: IReactorTime, *coroutines: Coroutine[Deferred[Any], Any, None]) -> None:
    """Run coroutines at once, until all have ended.

    When one raises, the others are cancelled, and that error is raised once they have ended too;
    when this is cancelled, so are they.  None is left running in either case.
    """
    tasks = [Deferred.fromCoroutine(coroutine) for coroutine in coroutines]
    ended = [_settled(task) for task in tasks]
    error: BaseException | None = None
    try:
        await DeferredList(tasks, fireOnOneErrback=True, consumeErrors=True)
    except FirstError as first:
        error = first.subFailure.value
    except CancelledError as cancelled:
        error = cancelled
    if error is not None:
        # The one that failed may have been woken by another, which is then still on the stack,
        # and what runs cannot be cancelled: let it come to its next await.
        await deferLater(clock, 0, lambda: None)
        for task in tasks:
            task.cancel()
        for end in ended:
            await end
        raise error


def _settled(task: Deferred[None]) -> Deferred[None]:
    """Return a Deferred that fires when ``task`` has ended, in whatever way."""
    end: Deferred[None] = Deferred()

    def pass_on(result: Any) -> Any:
        end.callback(None)
        return result

    task.addBoth(pass_on)
    return end
