"""The form of times in answers."""

from __future__ import annotations

from datetime import UTC, datetime


def to_seconds(when: datetime | float) -> str:
    """Return a time as Nova and Glance show most times: in UTC, as ``2026-01-31T12:00:00Z``.

    :param when: a time in UTC, or the seconds since 1970.
    """
    moment = when if isinstance(when, datetime) else datetime.fromtimestamp(when, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
