"""Cinder's words for exceeded quotas: the names of its own errors come first."""

from __future__ import annotations

from bootvol.api.cinder.default_type import DEFAULT
from bootvol.errors import Excess


def of(excess: Excess) -> str:
    """Return the message about an exceeded quota."""
    limit, used, wanted = excess.limit, excess.used, excess.wanted
    kind = "" if excess.of_type is None else f"_{excess.of_type or DEFAULT.name}"
    match excess.resource:
        case "volumes":
            return (
                f"VolumeLimitExceeded: Maximum number of volumes allowed ({limit}) exceeded for"
                f" quota 'volumes{kind}'."
            )
        case "snapshots":
            return f"SnapshotLimitExceeded: Maximum number of snapshots allowed ({limit}) exceeded"
        case "per_volume_gigabytes":
            return (
                f"VolumeSizeExceedsLimit: Requested volume size {wanted}G is larger than maximum"
                f" allowed limit {limit}G."
            )
    return (
        "VolumeSizeExceedsAvailableQuota: Requested volume or snapshot exceeds allowed"
        f" gigabytes{kind} quota. Requested {wanted}G, quota is {limit}G and {used}G has been"
        " consumed."
    )
