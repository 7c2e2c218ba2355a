"""The quotas of a tenant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest

from bootvol.errors import QuotaExceeded
from bootvol.model import Usage
from bootvol.service.quotas import Quota

UNBOUND = Quota(-1, -1, -1, -1)
VOLUME = "Volume quota exceeded. You cannot create a volume of size 3G"
TOO_LARGE = "Volume quota exceeded. You cannot create a snapshot of this size"
SNAPSHOT = "Snapshot quota exceeded. You cannot create another snapshot"
INSTANCE = "Instance quota exceeded. You cannot run any more instances of this type."


def bound(resource: str, most: int) -> Quota:
    """Return a quota with one limit."""
    changed: Any = {resource: most}
    return attrs.evolve(UNBOUND, **changed)


@pytest.mark.parametrize(
    ("resource", "least", "check", "text"),
    [
        ("volumes", 5, lambda quota: quota.check(Usage(4, 10), 3), VOLUME),
        ("gigabytes", 13, lambda quota: quota.check(Usage(4, 10), 3), VOLUME),
        ("snapshots", 5, lambda quota: quota.check_snapshots(4), SNAPSHOT),
        ("gigabytes", 13, lambda quota: quota.check_snapshots(4, 10, 3), TOO_LARGE),
        ("per_volume_gigabytes", 3, lambda quota: quota.check(Usage(4, 10), 3), VOLUME),
        ("instances", 5, lambda quota: quota.check_instances(4), INSTANCE),
    ],
)
def test_one_more_must_fit(
    resource: str, least: int, check: Callable[[Quota], None], text: str
) -> None:
    for enough in (-1, least, least + 1):
        check(bound(resource, enough))
    for less in (0, least - 1):
        with pytest.raises(QuotaExceeded) as refused:
            check(bound(resource, less))
        assert refused.value.message == text
