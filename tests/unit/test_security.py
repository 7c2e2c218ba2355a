"""Each claim of docs/security.md names tests, and each test fails if the claim becomes false."""

from __future__ import annotations

import re

import pytest

from tests import breaks

_, *THREATS = re.split(
    r"^## ", (breaks.ROOT / "docs" / "security.md").read_text(), flags=re.MULTILINE
)
TESTS = breaks.named("\n".join(THREATS))


@pytest.mark.parametrize("threat", THREATS, ids=lambda text: text.partition("\n")[0])
def test_each_claim_names_tests(threat: str) -> None:
    """A threat has the attack in italics, then claims with tests, and nothing else."""
    _, attack, *claims = re.split(r"\n\n(?:- )?|\n- ", threat.strip())
    assert attack.startswith("*")
    assert claims
    for claim in claims:
        assert breaks.named(claim), claim


@pytest.mark.parametrize("test", TESTS, ids=lambda test: f"{test.path}::{test.name}")
def test_each_test_lists_breaks_that_fit_the_code(test: breaks.Test) -> None:
    assert test.docstring() is not None, "no such test"
    assert test.breaks(), "its docstring lists no break: see tests/breaks.py"
    assert len(test.breaks()) == (test.docstring() or "").count("Break: "), "a break has no form"
    for change in test.breaks():
        assert change.broken()
