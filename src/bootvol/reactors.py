"""The reactor that bootvol runs on."""

from __future__ import annotations

from typing import cast

from twisted.internet.interfaces import (
    IReactorCore,
    IReactorFDSet,
    IReactorPluggableNameResolver,
    IReactorProcess,
    IReactorTCP,
    IReactorThreads,
    IReactorTime,
    IReactorUNIX,
)


class IReactor(
    IReactorCore,
    IReactorFDSet,
    IReactorPluggableNameResolver,
    IReactorProcess,
    IReactorTCP,
    IReactorThreads,
    IReactorTime,
    IReactorUNIX,
):
    """A reactor with all that bootvol and its plugins use.

    Code that needs only a clock takes an ``IReactorTime``, so that tests can pass a fake clock.
    """


def installed() -> IReactor:
    """Return the reactor of this process.  Installs Twisted's default if none is installed yet."""
    from twisted.internet import reactor

    return cast("IReactor", reactor)
