"""Breaks: changes of one line of code that a test must notice.

docs/security.md names tests for each claim.  The docstring of such a test lists one break or more::

    Break: `src/bootvol/api/http.py`: `if depth > DEEPEST:` -> `if False:`

A break makes the claim false in the code. A break consists of a file's path, a text that occurs in
the file once, and the replacement text.  ``make breaks`` makes each break in turn, and checks that
the test fails.  ``tests/unit/test_security.py`` checks that the breaks still fit the code.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import attrs

from tests.waiting import LONG_LIMIT

ROOT = Path(__file__).parents[1]
TEST = re.compile(r"`([\w/]+\.py)::(test_\w+)`")
#: Time limit of a test in seconds. A hanging test does not show the fault, and counts as unnoticed.
PATIENCE = LONG_LIMIT
BREAK = re.compile(r"Break: `([^`]+)`: `([^`]+)` -> `([^`]*)`")


@attrs.frozen
class Break:
    """A text of one file, and its replacement."""

    path: Path
    old: str
    new: str

    def broken(self) -> str:
        """Return the text of the file with the break in it.

        :raises ValueError: if the file does not have the old text exactly once, or if the new text
            is not Python.
        """
        text = self.path.read_text()
        if (times := text.count(self.old)) != 1:
            raise ValueError(f"{self.path}: {self.old!r} is there {times} times, not once")
        changed = text.replace(self.old, self.new)
        if self.path.suffix == ".py":
            ast.parse(changed)
        return changed


@attrs.frozen
class Test:
    """A test that docs/security.md names."""

    __test__ = False

    path: str
    name: str

    def docstring(self) -> str | None:
        """Return the docstring of the test; None if the test does not exist."""
        for node in ast.walk(ast.parse((ROOT / self.path).read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == self.name:
                return ast.get_docstring(node) or ""
        return None

    def breaks(self) -> list[Break]:
        """Return the breaks that the docstring lists."""
        text = " ".join((self.docstring() or "").split())
        return [Break(ROOT / path, old, new) for path, old, new in BREAK.findall(text)]

    def arguments(self) -> list[str]:
        """Return pytest's arguments to run the test."""
        if self.path.startswith("src/") or self.path == "tests/copies.py":
            return ["tests/contract", "-k", self.name]
        if self.path.startswith("tests/lvm/"):
            return [f"tests/system/test_lvm.py::test_inside[{Path(self.path).stem}]"]
        return [f"{self.path}::{self.name}"]


def named(text: str) -> list[Test]:
    """Return the tests that a part of docs/security.md names."""
    return [Test(path, name) for path, name in dict.fromkeys(TEST.findall(text))]


def is_noticed(test: Test, change: Break) -> bool:
    """Make a break, run the test, and put the code back. Return whether the test failed."""
    whole, broken = change.path.read_text(), change.broken()
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:randomly", *test.arguments()]
    change.path.write_text(broken)
    try:
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return False
    finally:
        change.path.write_text(whole)
    return re.search(rf"^FAILED .*{test.name}\b", ended.stdout, re.MULTILINE) is not None


def main(words: list[str]) -> int:
    """Make the breaks of all tests whose path and name contain one of the words, or of all tests.

    Return how many breaks went unnoticed.
    """
    unnoticed = 0
    for test in named((ROOT / "docs" / "security.md").read_text()):
        name = f"{test.path}::{test.name}"
        if words and not any(word in name for word in words):
            continue
        for change in test.breaks():
            noticed = is_noticed(test, change)
            unnoticed += not noticed
            print("noticed  " if noticed else "UNNOTICED", name, f"{change.old!r}", flush=True)
    return unnoticed


if __name__ == "__main__":
    sys.exit(1 if main(sys.argv[1:]) else 0)
