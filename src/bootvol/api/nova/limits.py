"""The operation of limits (specification, section 5.3)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from typing_extensions import TypedDict

from bootvol.api.nova.context import NovaContext
from bootvol.api.nova.views import Count, Moment
from bootvol.api.operations import operation
from bootvol.api.times import to_seconds
from bootvol.service.quotas import MOST_METADATA, Account
from bootvol.service.rates import Rate

#: A rate limit.
RateShown = TypedDict(
    "RateShown",
    {
        "verb": str,
        "value": Count,
        "remaining": Count,
        "unit": str,
        "next-available": Moment,
    },
)


class RatesShown(TypedDict):
    """The rate limits of the same calls."""

    uri: str
    regex: str
    limit: list[RateShown]


class Used(TypedDict):
    """The tenant's current usage."""

    totalVolumesUsed: Count
    totalVolumeGigabytesUsed: Count
    totalSnapshotsUsed: Count
    totalInstancesUsed: Count


class Absolute(Used, total=False):
    """The tenant's usage and limits; a value without a limit is left out."""

    maxTotalVolumes: Count
    maxTotalVolumeGigabytes: Count
    maxTotalSnapshots: Count
    maxTotalInstances: Count
    maxTotalKeypairs: Count
    maxServerMeta: Count


class LimitsShown(TypedDict):
    """All limits."""

    rate: list[RatesShown]
    absolute: Absolute


class Limits(TypedDict):
    limits: LimitsShown


@operation("limits_show_limits", "GET", "limits")
async def show_limits(context: NovaContext) -> Limits:
    """Show the tenant's usage, quota and rate limits."""
    account = await context.services.quotas.account(context.caller)
    return {
        "limits": {
            "rate": _rates(context.services.rates.of(context.caller.tenant)),
            "absolute": _absolute(account),
        }
    }


def _absolute(account: Account) -> Absolute:
    shown: Absolute = {
        "totalVolumesUsed": account.volumes.volumes,
        "totalVolumeGigabytesUsed": account.volumes.gigabytes,
        "totalSnapshotsUsed": account.snapshots,
        "totalInstancesUsed": account.instances,
    }
    quota = account.quota
    shown["maxServerMeta"] = MOST_METADATA
    if quota.key_pairs != -1:
        shown["maxTotalKeypairs"] = quota.key_pairs
    if quota.volumes != -1:
        shown["maxTotalVolumes"] = quota.volumes
    if quota.gigabytes != -1:
        shown["maxTotalVolumeGigabytes"] = quota.gigabytes
    if quota.snapshots != -1:
        shown["maxTotalSnapshots"] = quota.snapshots
    if quota.instances != -1:
        shown["maxTotalInstances"] = quota.instances
    return shown


def _rates(rates: Iterable[Rate]) -> list[RatesShown]:
    """Return rate limits grouped by their calls, as in Nova."""
    now = datetime.now(UTC)
    groups: dict[tuple[str, str], list[RateShown]] = {}
    for rate in rates:
        limit = rate.limit
        groups.setdefault((limit.uri, limit.regex.pattern), []).append(
            {
                "verb": limit.verb,
                "value": limit.value,
                "remaining": rate.remaining,
                "unit": limit.unit,
                "next-available": to_seconds(now + timedelta(seconds=rate.wait)),
            }
        )
    return [
        {"uri": uri, "regex": regex, "limit": limits} for (uri, regex), limits in groups.items()
    ]


OPERATIONS = (show_limits,)
