"""Tests that feed parsers with whatever hypothesis makes: longer in ``make fuzz``."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final, TypeVar

import pytest
from hypothesis import HealthCheck, settings

#: How many times as many examples as in ``make test``.
_TIMES: Final = int(os.environ.get("FUZZ", "1"))

Test = TypeVar("Test", bound=Callable[..., object])


def fuzz(examples: int) -> Callable[[Test], Test]:
    """Mark a test that takes examples of hypothesis, and say how many ``make test`` tries."""

    def mark(test: Test) -> Test:
        # A fixture may be the same for all examples, and examples may be slow.
        checks = list(HealthCheck)
        more = settings(max_examples=examples * _TIMES, deadline=None, suppress_health_check=checks)
        marked: Test = pytest.mark.fuzz(more(test))
        return marked

    return mark
