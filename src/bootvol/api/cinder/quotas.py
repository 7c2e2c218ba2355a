"""Operations of quotas and limits (docs/block-storage.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from pydantic import ConfigDict, RootModel
from typing_extensions import TypedDict

from bootvol.api.cinder.context import CinderContext
from bootvol.api.cinder.default_type import DEFAULT
from bootvol.api.cinder.matching import flag
from bootvol.api.cinder.words import MALFORMED
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


#: A project's limits, with the project's ``id``; and three limits for each type.
QuotaShown = dict[str, int | str | Used]


class OneQuota(TypedDict):
    quota_set: QuotaShown


class OneClass(TypedDict):
    quota_class_set: QuotaShown


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


class Bounds(RootModel[dict[str, object]]):
    """The new limits of an update; absent limits stay."""

    model_config = ConfigDict(strict=True)


#: The limits of Cinder's quotas, in the order of its answers.
_NAMES: Final = (
    "volumes",
    "per_volume_gigabytes",
    "snapshots",
    "gigabytes",
    "backups",
    "backup_gigabytes",
    "groups",
)
#: The limits for each type: the name of the type follows after a low line.
_OF_TYPES: Final = ("volumes", "gigabytes", "snapshots")
#: The names of types and of limits, by the names of the limits for types.
_Types: TypeAlias = Mapping[str, tuple[str, str]]
#: The only class of quotas: that of projects without a quota of their own.
_CLASS: Final = "default"


@operation("quotas_show_quota", "GET", "os-quota-sets/<project>", query=("usage",))
async def show_quota(context: CinderContext, project: str) -> OneQuota:
    """Show a project's quota; only operators may see other projects' quotas."""
    _check(context, project)
    usage = flag(text(context.request, b"usage") or "false", "usage")
    account = await context.services.quotas.account_of(project)
    types = await _types(context)
    if not usage:
        return {"quota_set": {**_limits(account.quota, types), "id": project}}
    limits = _limits(account.quota, types)
    used = _usage(account)
    shown: QuotaShown = {
        name: {"limit": int(str(limit)), "in_use": used.get(name, 0), "reserved": 0}
        for name, limit in limits.items()
    }
    return {"quota_set": {**shown, "id": project}}


@operation("quotas_show_default", "GET", "os-quota-sets/<project>/defaults")
async def show_default(context: CinderContext, project: str) -> OneQuota:
    """Show the default quota."""
    _check(context, project)
    quota = await context.services.quotas.default()
    return {"quota_set": {**_limits(quota, await _types(context)), "id": project}}


@operation(
    "quotas_change_quota",
    "PUT",
    "os-quota-sets/<project>",
    entity="quota_set",
    right=Right.QUOTAS,
    query=("skip_validation",),
)
async def change_quota(context: CinderContext, project: str, body: Bounds) -> OneQuota:
    """Set a project's quota; limits that the request does not name stay."""
    _check(context, project)
    types = await _types(context)
    given = dict(body.root)
    # Some clients repeat the project here.
    if given.pop("tenant_id", None) not in (None, project):
        raise InvalidRequest("Invalid input received: the body names another project")
    bounds, of_types = _bounds(given, types, "quota set")
    quota = await context.services.quotas.set(project, bounds, of_types)
    return {"quota_set": _limits(quota, types)}


@operation("quotas_delete_quota", "DELETE", "os-quota-sets/<project>", right=Right.QUOTAS)
async def delete_quota(context: CinderContext, project: str) -> None:
    """Give a project the default quota again."""
    _check(context, project)
    await context.services.quotas.reset(project)


@operation("quotas_show_class", "GET", "os-quota-class-sets/<name>", right=Right.QUOTAS)
async def show_class(context: CinderContext, name: str) -> OneClass:
    """Show the quota of all projects without a quota of their own."""
    quota = await context.services.quotas.default()
    return {"quota_class_set": {**_limits(quota, await _types(context)), "id": name[:255]}}


@operation(
    "quotas_change_class",
    "PUT",
    "os-quota-class-sets/<name>",
    entity="quota_class_set",
    right=Right.QUOTAS,
)
async def change_class(context: CinderContext, name: str, body: Bounds) -> OneClass:
    """Set the quota of all projects without a quota of their own."""
    if name != _CLASS:
        raise InvalidRequest(f"The only class of quotas is {_CLASS}.")
    types = await _types(context)
    bounds, of_types = _bounds(body.root, types, "quota class set")
    quota = await context.services.quotas.set_default(bounds, of_types)
    return {"quota_class_set": _limits(quota, types)}


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
                "maxTotalBackups": account.quota.backups,
                "maxTotalBackupGigabytes": account.quota.backup_gigabytes,
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


async def _types(context: CinderContext) -> _Types:
    """Return the limits for types, in Cinder's order: the newest type first."""
    types = [DEFAULT, *await context.services.types.listed(context.sees_types_of)]
    return {
        f"{resource}_{each.name}": ("" if each is DEFAULT else each.name, resource)
        for each in reversed(types)
        for resource in _OF_TYPES
    }


def _bounds(
    given: Mapping[str, object], types: _Types, what: str
) -> tuple[Mapping[str, int], Mapping[str, Mapping[str, int]]]:
    """Return the new limits of an update: those of all volumes, and those of single types.

    :raises InvalidRequest: if a limit does not exist, or is not a valid number.
    """
    unknown = [name for name in given if name not in _NAMES and name not in types]
    if unknown:
        raise InvalidRequest(
            f"Invalid input received: Bad key(s) in {what}: {','.join(unknown)[:255]}"
        )
    bounds = {name: _bound(name, value) for name, value in given.items()}
    of_types = dict[str, dict[str, int]]()
    for name in bounds.keys() & types.keys() - set(_NAMES):
        kind, resource = types[name]
        of_types.setdefault(kind, {})[resource] = bounds[name]
    return {name: bounds[name] for name in bounds if name in _NAMES}, of_types


def _bound(name: str, value: object) -> int:
    if isinstance(value, str) and value.isdigit():
        raise InvalidRequest(MALFORMED)
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidRequest(f"{name} must be an integer")
    if value < -1:
        raise InvalidRequest(f"{name} must be >= -1")
    if value > LARGEST_ID:
        raise InvalidRequest(f"{name} must be <= {LARGEST_ID}")
    return value


def _limits(quota: Quota, types: _Types) -> QuotaShown:
    of_types = {
        name: quota.types.get(kind, {}).get(resource, -1)
        for name, (kind, resource) in types.items()
    }
    return {
        **{name: int(getattr(quota, name)) for name in _NAMES[:-1]},
        **of_types,
        "groups": quota.groups,
    }


def _usage(account: Account) -> Mapping[str, int]:
    shown = {
        "volumes": account.volumes.volumes,
        "gigabytes": account.volumes.gigabytes,
        "snapshots": account.snapshots,
    }
    for name, used in account.types.items():
        kind = name or DEFAULT.name
        for resource in _OF_TYPES:
            shown[f"{resource}_{kind}"] = int(getattr(used, resource))
    return shown


OPERATIONS = (
    show_quota,
    show_default,
    change_quota,
    delete_quota,
    show_class,
    change_class,
    show_limits,
)
