"""requirements.lock pins all packages of a release by hashes, and fits pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires
from typing import Any

import attrs
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from release import audit

PROJECT = tomllib.loads((audit.LOCK.parent / "pyproject.toml").read_text())["project"]
#: The requirements of a release: the project's own, and those for PostgreSQL.
WANTED = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["postgresql"]]


@attrs.frozen
class Pin:
    """An entry of the lock file."""

    version: str
    hashes: tuple[str, ...]


def locked() -> dict[str, Pin]:
    """Return the entries of the lock file, by package name."""
    found: dict[str, Pin] = {}
    for entry in re.split(r"\n(?=[A-Za-z0-9])", audit.LOCK.read_text()):
        head = re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^ ;\\\n]+)", entry)
        if head is not None:
            hashes = tuple(re.findall(r"--hash=sha256:([0-9a-f]{64})\b", entry))
            found[canonicalize_name(head[1])] = Pin(head[2], hashes)
    return found


def needs(wanted: list[str], extras: frozenset[str] = frozenset()) -> Iterator[Requirement]:
    """Yield the requirements needed on this machine."""
    for text in wanted:
        each = Requirement(text)
        found = (
            [each.marker.evaluate({"extra": extra}) for extra in extras or {""}]
            if each.marker
            else [True]
        )
        if any(found):
            yield each


def test_the_lock_file_fits_the_project() -> None:
    """`make lock` repairs a difference.

    Break: `pyproject.toml`: `"attrs>=25.1",` -> `"attrs>=99",`
    """
    pins, seen = locked(), set()
    left = list(needs(WANTED))
    while left:
        wanted = left.pop()
        name = canonicalize_name(wanted.name)
        pin = pins.get(name)
        assert pin is not None, f"{wanted} is not in requirements.lock: run `make lock`"
        assert wanted.specifier.contains(pin.version, prereleases=True), (
            f"{wanted} does not allow {pin.version} of requirements.lock: run `make lock`"
        )
        if (name, frozenset(wanted.extras)) in seen:
            continue
        seen.add((name, frozenset(wanted.extras)))
        try:
            left += needs(requires(wanted.name) or [], frozenset(wanted.extras))
        except PackageNotFoundError:
            # psycopg's binary has no requirements, and is not available for every machine.
            continue
    assert len(seen) > 30


def test_all_that_is_pinned_has_hashes() -> None:
    pins = locked()
    assert len(pins) > 30
    assert [name for name, pin in pins.items() if not pin.hashes] == []


def test_nothing_names_a_place_to_fetch_from() -> None:
    text = audit.LOCK.read_text()
    assert "://" not in text
    assert not re.search(r"^--?(i|index|find|extra|trusted)", text, re.MULTILINE)


CLEAN: dict[str, Any] = {"name": "a", "version": "1", "vulns": []}
BAD: dict[str, Any] = {**CLEAN, "vulns": [{"id": "X-1", "fix_versions": ["2"]}]}
UNKNOWN: dict[str, Any] = {"name": "b", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("packages", "code", "words"),
    [
        ([CLEAN], 0, "1 packages have no known"),
        ([CLEAN, BAD], 1, "X-1"),
        ([CLEAN, UNKNOWN], 2, "NOT AUDITED: .* of 1 of 2 packages.*: b"),
        ([BAD, UNKNOWN], 1, "NOT AUDITED"),
        ([], 2, "NOT AUDITED"),
    ],
)
def test_an_audit_that_found_no_data_is_no_success(
    packages: list[dict[str, Any]], code: int, words: str
) -> None:
    """Break: `release/audit.py`: `2 if unknown or not packages else 0` -> `0`"""
    judged, lines = audit.judge({"dependencies": packages})
    assert judged == code
    assert re.search(words, "\n".join(lines))
