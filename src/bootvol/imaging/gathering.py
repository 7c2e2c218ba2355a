"""Coroutines that run together, and end together."""

from __future__ import annotations

from collections.abc import Coroutine

from twisted.internet.defer import CancelledError, Deferred, DeferredList, FirstError
from twisted.internet.interfaces import IReactorTime

from bootvol.clocks import sleep
from bootvol.threads import outlast


async def gather_cancelling(
    clock: IReactorTime, *coroutines: Coroutine[Deferred[object], object, None]
) -> None:
    """Run coroutines concurrently, until all have ended.

    If one coroutine raises, the others are cancelled.  The error is raised after all have ended.  A
    cancellation of this call cancels all coroutines.  In any case, no coroutine is left running.
    """
    running = [Deferred.fromCoroutine(coroutine) for coroutine in coroutines]
    error: BaseException | None = None
    try:
        await DeferredList(running, fireOnOneErrback=True, consumeErrors=True)
    except FirstError as first:
        error = first.subFailure.value
    except CancelledError as cancelled:
        error = cancelled
    if error is not None:
        await outlast(Deferred.fromCoroutine(_end(clock, running)))
        raise error


async def _end(clock: IReactorTime, running: list[Deferred[None]]) -> None:
    # Another coroutine may have woken the failed one.  That other one is still on the stack, and a
    # running coroutine cannot be cancelled.  So let that coroutine reach its next await.
    await sleep(clock, 0)
    for each in running:
        each.cancel()
    await DeferredList(running, consumeErrors=True)
