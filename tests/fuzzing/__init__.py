"""Tests that feed parsers with hypothesis's examples. ``make fuzz`` tries more examples."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final, TypeVar

import pytest
from hypothesis import HealthCheck, settings

#: Factor for the number of examples in ``make test``.
_TIMES: Final = int(os.environ.get("FUZZ", "1"))

Test = TypeVar("Test", bound=Callable[..., object])


def fuzz(examples: int) -> Callable[[Test], Test]:
    """Mark a hypothesis test.

    :param examples: the number of examples in ``make test``.
    """

    def mark(test: Test) -> Test:
        # All examples may share a fixture, and examples may be slow.
        checks = list(HealthCheck)
        more = settings(max_examples=examples * _TIMES, suppress_health_check=checks)
        marked: Test = pytest.mark.fuzz(more(test))
        return marked

    return mark
