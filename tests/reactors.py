"""Fakes of the reactor, as far as a test needs the reactor."""

from __future__ import annotations

from typing import cast

from bootvol.reactors import IReactor


def as_reactor(fake: object) -> IReactor:
    """Return a fake that has only the methods that the code under test calls."""
    return cast("IReactor", fake)
