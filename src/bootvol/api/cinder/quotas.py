"""Operations of quotas and limits (docs/block-storage.md)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from bootvol.api.cinder.context import CinderContext
from bootvol.api.cinder.matching import flag
from bootvol.api.filters import text
from bootvol.api.operations import operation
from bootvol.errors import InvalidRequest, NotFound
from bootvol.model import LARGEST_ID
from bootvol.policy import Right
from bootvol.service.quotas import Account, Quota


class Used(TypedDict):
    """A limit and its usage; -1 means no limit."""

    limit: int
    in_use: int
    reserved: Literal[0]


class QuotaShown(TypedDict):
    """A project's limits; -1 means no limit."""

    id: str
    volumes: int | Used
    snapshots: int | Used
    gigabytes: int | Used
    per_volume_gigabytes: int | Used
    backups: int | Used
    backup_gigabytes: int | Used
    groups: int | Used


class OneQuota(TypedDict):
    quota_set: QuotaShown


class Absolute(TypedDict):
    """The limits and the usage of the project."""

    maxTotalVolumes: int
    maxTotalSnapshots: int
    maxTotalVolumeGigabytes: int
    maxTotalBackups: int
    maxTotalBackupGigabytes: int
    totalVolumesUsed: int
    totalGigabytesUsed: int
    totalSnapshotsUsed: int
    totalBackupsUsed: int
    totalBackupGigabytesUsed: int


class LimitsShown(TypedDict):
    """All limits."""

    rate: list[None]
    absolute: Absolute


class Limits(TypedDict):
    limits: LimitsShown


Bound = Annotated[int, Field(ge=-1, le=LARGEST_ID)]


class ChangeQuota(BaseModel):
    """The object ``quota_set`` of an update.  Absent limits stay."""

    model_config = ConfigDict(strict=True, extra="forbid", defer_build=True)

    volumes: Bound | None = None
    snapshots: Bound | None = None
    gigabytes: Bound | None = None
    #: Some clients repeat the project here.
    tenant_id: str | None = None


@operation("quotas_show_quota", "GET", "os-quota-sets/<project>", query=("usage",))
async def show_quota(context: CinderContext, project: str) -> OneQuota:
    """Show a project's quota; only operators may see other projects' quotas."""
    _check(context, project)
    usage = text(context.request, b"usage")
    account = await context.services.quotas.account_of(project)
    return {"quota_set": _shown(project, account, flag(usage or "false", "usage"))}


@operation("quotas_show_default", "GET", "os-quota-sets/<project>/defaults")
async def show_default(context: CinderContext, project: str) -> OneQuota:
    """Show the default quota."""
    _check(context, project)
    return {"quota_set": _limits(project, context.services.quotas.default)}


@operation(
    "quotas_change_quota",
    "PUT",
    "os-quota-sets/<project>",
    entity="quota_set",
    right=Right.QUOTAS,
    query=("skip_validation",),
)
async def change_quota(context: CinderContext, project: str, body: ChangeQuota) -> OneQuota:
    """Set a project's quota; limits that the request does not name stay."""
    _check(context, project)
    bounds = body.model_dump(exclude_none=True, exclude={"tenant_id"})
    if "tenant_id" in body.model_fields_set and body.tenant_id not in (None, project):
        raise InvalidRequest("Invalid input received: the body names another project")
    return {"quota_set": _limits(project, await context.services.quotas.set(project, bounds))}


@operation("limits_show_limits", "GET", "limits", query=("project_id",))
async def show_limits(context: CinderContext) -> Limits:
    """Show the limits and the usage of the caller's project; from 3.39 on, of any project."""
    project = text(context.request, b"project_id") if context.has(39) else None
    # As in Cinder, only operators choose a project.
    project = project if project and context.may(Right.QUOTAS) else context.caller.tenant
    _check(context, project)
    account = await context.services.quotas.account_of(project)
    return {
        "limits": {
            "rate": [],
            "absolute": {
                "maxTotalVolumes": account.quota.volumes,
                "maxTotalSnapshots": account.quota.snapshots,
                "maxTotalVolumeGigabytes": account.quota.gigabytes,
                "maxTotalBackups": 0,
                "maxTotalBackupGigabytes": 0,
                "totalVolumesUsed": account.volumes.volumes,
                "totalGigabytesUsed": account.volumes.gigabytes,
                "totalSnapshotsUsed": account.snapshots,
                "totalBackupsUsed": 0,
                "totalBackupGigabytesUsed": 0,
            },
        }
    }


def _check(context: CinderContext, project: str) -> None:
    """Check that a caller may see the quota of a project.

    :raises NotFound: if the name is longer than any project's name.
    :raises bootvol.errors.Forbidden: if the caller may not.
    """
    if len(project) > 255:
        raise NotFound
    if project != context.caller.tenant:
        context.policy.check(context.caller.roles, Right.QUOTAS)


def _limits(project: str, quota: Quota) -> QuotaShown:
    return {
        "id": project,
        "volumes": quota.volumes,
        "snapshots": quota.snapshots,
        "gigabytes": quota.gigabytes,
        "per_volume_gigabytes": -1,
        "backups": 0,
        "backup_gigabytes": 0,
        "groups": 0,
    }


def _shown(project: str, account: Account, usage: bool) -> QuotaShown:
    limits = _limits(project, account.quota)
    if not usage:
        return limits
    return {
        "id": project,
        "volumes": _used(account.quota.volumes, account.volumes.volumes),
        "snapshots": _used(account.quota.snapshots, account.snapshots),
        "gigabytes": _used(account.quota.gigabytes, account.volumes.gigabytes),
        "per_volume_gigabytes": _used(-1, 0),
        "backups": _used(0, 0),
        "backup_gigabytes": _used(0, 0),
        "groups": _used(0, 0),
    }


def _used(limit: int, in_use: int) -> Used:
    return {"limit": limit, "in_use": in_use, "reserved": 0}


OPERATIONS = (show_quota, show_default, change_quota, show_limits)
