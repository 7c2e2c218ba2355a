"""The targets of ``make fuzz``: right images pass through each decoder, and faults are seen."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.internet.defer import Deferred

from bootvol.errors import ImportFailed
from tests.fuzzing import targets


@pytest.mark.parametrize("name", targets.TARGETS)
def test_the_seeds_are_right_images(name: str, tmp_path: Path) -> None:
    """A refused seed would lead the search no further than to the refusal."""
    target = targets.TARGETS[name]
    seeds = target.seeds(tmp_path)
    assert seeds
    for seed in seeds:
        targets.run(target.decode(seed))


def test_other_errors_than_refusals_are_faults() -> None:
    async def decode(content: bytes) -> None:
        raise (ImportFailed if content else ZeroDivisionError)("broken")

    target = targets.Target(decode, lambda _: [])
    target.feed(b"a")
    with pytest.raises(ZeroDivisionError):
        target.feed(b"")


def test_a_decoder_that_does_not_end_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "_TURNS", 10)

    async def decode(content: bytes) -> None:
        await Deferred()

    with pytest.raises(AssertionError, match="does not end"):
        targets.Target(decode, lambda _: []).feed(b"")
