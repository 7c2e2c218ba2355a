"""The saved progress of an import."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from bootvol.errors import SourceFailed
from bootvol.model import Checkpoint, Image, Import, Phase
from bootvol.worker.progress import Progress

CHECKPOINT = Checkpoint(100, "digest", "validator")
TASK = Import(1, Image("i", "s", "n", size_bytes=1000), checkpoint=CHECKPOINT)


class Stopped:
    """A copy after some progress."""

    offset, size, skipped, warnings = 500, 1000, 0, ()
    checkpoint = Checkpoint(400, "later", "validator")


@pytest.mark.parametrize("staged", [False, True])
def test_what_lay_on_the_spool_is_not_on_the_volume(staged: bool) -> None:
    progress = Progress(0.0)
    progress.start(TASK)
    assert progress.checkpoint == CHECKPOINT
    copy: Any = Stopped()
    progress.copy, progress.staged = copy, staged
    assert (progress.columns(1.0)["durable_bytes"] is None) is staged
    progress.start(TASK)
    assert progress.checkpoint == (CHECKPOINT if staged else Stopped.checkpoint)
    assert progress.columns(1.0)["durable_bytes"] == (100 if staged else 400)


def test_the_rate_is_of_what_was_moved() -> None:
    """Skipped zeros do not count, since any number may be skipped at once."""
    tebibyte = 1024**4
    copy: Any = Stopped()
    copy.size, copy.offset, copy.skipped = 2 * tebibyte, 500, 100
    progress = Progress(0.0)
    progress.start(TASK)
    progress.begin(copy, Phase.DOWNLOADING, 10.0)
    assert progress.columns(10.0)["bytes_per_second"] == 0
    copy.offset, copy.skipped = 500 + tebibyte, 100 + tebibyte
    assert progress.columns(11.0)["bytes_per_second"] == 0
    copy.offset += 3000
    columns = progress.columns(13.0)
    assert columns["bytes_per_second"] == 1000
    assert columns["bytes_done"] == 3500 + tebibyte
    # Nor does a clone.
    progress.arrive(tebibyte)
    assert progress.columns(14.0)["bytes_per_second"] == 0


def test_the_last_failure_shows_until_the_next_attempt_copies() -> None:
    progress = Progress(0.0)
    progress.start(TASK)
    progress.phase, progress.failure = Phase.RETRYING, SourceFailed("Broken.").report()
    failure: Any = progress.columns(1.0)["failure"]
    assert failure["message"] == "Broken."
    copy: Any = Stopped()
    progress.begin(copy, Phase.DOWNLOADING, 1.0)
    assert progress.columns(2.0)["failure"] is None


def test_what_was_there_before_counts_for_no_rate() -> None:
    progress = Progress(0.0)
    progress.start(TASK)
    assert progress.columns(0.001)["bytes_done"] == 100
    assert progress.columns(0.001)["bytes_per_second"] == 0


def test_the_stated_size_is_saved() -> None:
    progress = Progress(0.0)
    progress.start(TASK)
    stream: Any = SimpleNamespace(size=2000, validator="newer", offset=0)
    progress.stated.hold(stream)
    columns = progress.columns(1.0)
    assert (columns["stated_size"], columns["stated_validator"]) == (2000, "newer")
