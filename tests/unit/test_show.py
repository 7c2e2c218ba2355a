"""What the command line prints."""

from __future__ import annotations

from typing import Any

import pytest

from bootvol.cli import show


@pytest.mark.parametrize(
    ("progress", "shown"),
    [
        ({"phase": "queued", "position": 3}, "waiting (3 in line)"),
        ({"phase": "downloading", "position": 1}, "waiting (1 in line)"),
        ({"phase": "downloading", "position": None}, "downloading"),
        ({"phase": "queued"}, "queued"),
    ],
)
def test_who_waits_sees_the_place_in_line(progress: dict[str, Any], shown: str) -> None:
    assert show.stage(progress) == shown
