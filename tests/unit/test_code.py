"""The code keeps to the limits that CONTRIBUTING.md sets."""

from __future__ import annotations

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
#: A module has fewer lines than this.
LINES: Final = 400


def modules() -> list[Path]:
    """Return the modules of bootvol and of its plugins."""
    found = [*(ROOT / "src").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")]
    assert len(found) > 250
    return found


def test_modules_are_short() -> None:
    long = [each for each in modules() if len(each.read_text().splitlines()) >= LINES]
    assert long == []
