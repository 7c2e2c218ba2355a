"""docs/security.md names, for each threat, the tests that there really are."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: What comes before the first threat is about all of them.
_, *THREATS = re.split(r"^## ", (ROOT / "docs" / "security.md").read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize("threat", THREATS, ids=lambda text: text.partition("\n")[0])
def test_each_threat_has_tests(threat: str) -> None:
    listed = [line for line in threat.splitlines() if line.startswith("- ")]
    assert listed
    for line in listed:
        found = re.fullmatch(r"- `([a-z_/]+\.py)::(test_\w+)`", line)
        assert found, line
        assert found[2] in named_in(ROOT / found[1]), line


def named_in(path: Path) -> set[str]:
    """Return the names of a module's tests."""
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
