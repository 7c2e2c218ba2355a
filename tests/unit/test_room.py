"""Cached images are deleted for a volume without room, but not for one that never fits."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from bootvol.errors import NoSpace
from bootvol.worker.shortcuts import Filling, NoShortcut
from bootvol.worker.tasks.storage import Storage
from tests.unit.test_shortcuts import Bench, bench
from tests.unit.test_worker import NoImageCache

__all__ = ["bench"]

ROOM = pytest.mark.parametrize(("never_fits", "asked"), [(False, ["b"]), (True, [])])


class Full(NoShortcut):
    """A shortcut on a backend without room."""

    def __init__(self, error: NoSpace) -> None:
        self._error = error

    async def before_source(self, filling: Filling) -> bool:
        """See :meth:`bootvol.worker.shortcuts.Shortcut.before_source`."""
        raise self._error


@ROOM
@ensureDeferred
async def test_an_import(bench: Bench, never_fits: bool, asked: list[str]) -> None:
    way: Any = Full(NoSpace(never_fits=never_fits))
    with pytest.raises(NoSpace):
        await bench.run([way])
    assert bench.image_cache.asked_for_room == asked


@ROOM
@ensureDeferred
async def test_a_copy(never_fits: bool, asked: list[str]) -> None:
    async def make() -> None:
        raise NoSpace(never_fits=never_fits)

    image_cache: Any = NoImageCache()
    no: Any = None
    with pytest.raises(NoSpace):
        await Storage(no, no, image_cache, "d").with_room("b", make)
    assert image_cache.asked_for_room == asked
