"""The lvm backend gives volumes up after a kill, without LVM; tests/lvm has the tests with LVM."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from pytest_twisted import ensureDeferred

from bootvol.interfaces import IAdoptingBackend, PluginContext
from bootvol.threads import Threads
from bootvol_plugins.lvm.thick import ThickBackend
from tests.daemons import reactor

PLACE = "volume-of-cinder"


class Group:
    """A group of volumes: names with their tags."""

    def __init__(self, tags: dict[str, str]) -> None:
        self.tags = tags
        self.runs: list[tuple[str, ...]] = []

    async def report(
        self, command: str, fields: Sequence[str], *words: str
    ) -> list[dict[str, str]]:
        """Return the report of all volumes; a selection by one name finds nothing."""
        if "-S" in words:
            return []
        row = dict.fromkeys(fields, "1")
        return [{**row, "lv_name": name, "lv_tags": tag} for name, tag in self.tags.items()]

    async def run(self, *command: str) -> None:
        """Note a command."""
        self.runs.append(command)


@pytest.mark.parametrize(
    ("tags", "runs"),
    [
        ("bootvol", [("lvchange", "--deltag", "bootvol", f"vg/{PLACE}")]),
        ("", []),
        ("other", []),
    ],
)
@ensureDeferred
async def test_a_volume_that_was_only_tagged_loses_the_tag(
    threads: Threads, monkeypatch: pytest.MonkeyPatch, tags: str, runs: list[tuple[str, ...]]
) -> None:
    """A kill came between the tag and the change of names, or between the name and the tag.

    Break: `plugins/bootvol_plugins/lvm/adoption.py`: `await self._untag(place)` -> `pass`.
    """
    context = PluginContext(reactor, threads, "disks")
    backend = ThickBackend(context, "/nowhere", "vg", "store", ["lvreduce"])
    group = Group({PLACE: tags, "elsewhere": "bootvol"})
    monkeypatch.setattr(backend, "_lvm", group)
    await IAdoptingBackend(backend).give_up("v", PLACE)
    assert group.runs == runs
