"""Operations of os-quota-sets (specification, section 5.4); the texts are Folsom's."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, Field
from typing_extensions import TypedDict

from bootvol.api.bodies import BODY
from bootvol.api.nova.context import NovaContext
from bootvol.api.operations import operation
from bootvol.errors import NotFound
from bootvol.model import LARGEST_ID
from bootvol.policy import Right
from bootvol.service.quotas import Quota


def _bound(value: object) -> int:
    if isinstance(value, str) and len(value) < 12:
        try:
            value = int(value)
        except ValueError:
            value = None
    if not isinstance(value, int) or isinstance(value, bool) or value > LARGEST_ID:
        raise ValueError(
            f"Invalid input received: a quota limit must be an integer of at most {LARGEST_ID}"
        )
    if value < -1:
        raise ValueError("Quota limit must be -1 or greater.")
    return value


BoundShown = Annotated[int, Field(ge=-1, le=LARGEST_ID)]
Bound = Annotated[
    int, BeforeValidator(_bound, BoundShown | Annotated[str, Field(pattern="^(-1|[0-9]+)$")])
]


class ChangeQuota(BaseModel):
    """The object ``quota_set`` of an update.  Other names are ignored (Nova has more)."""

    model_config = BODY

    volumes: Bound | None = None
    gigabytes: Bound | None = None
    snapshots: Bound | None = None
    instances: Bound | None = None
    key_pairs: Bound | None = None


class QuotaShown(TypedDict):
    """A tenant's limits; -1 means no limit."""

    volumes: BoundShown
    gigabytes: BoundShown
    snapshots: BoundShown
    instances: BoundShown
    key_pairs: BoundShown


class QuotaOfTenant(QuotaShown):
    """A tenant's limits, with the tenant."""

    id: str


class OneQuota(TypedDict):
    quota_set: QuotaOfTenant


class ChangedQuota(TypedDict):
    quota_set: QuotaShown


@operation("quotas_show_quota", "GET", "os-quota-sets/<of_tenant>")
async def show_quota(context: NovaContext, of_tenant: str) -> OneQuota:
    """Show a tenant's quota; only admins may see other tenants' quotas."""
    name = _tenant(of_tenant)
    if name != context.caller.tenant:
        context.policy.check(context.caller.roles, Right.QUOTAS)
    return {"quota_set": {"id": name, **_shown(await context.services.quotas.get(name))}}


@operation("quotas_show_default_quota", "GET", "os-quota-sets/<of_tenant>/defaults")
async def show_default_quota(context: NovaContext, of_tenant: str) -> OneQuota:
    """Show the default quota."""
    return {
        "quota_set": {"id": _tenant(of_tenant), **_shown(await context.services.quotas.default())}
    }


@operation(
    "quotas_update_quota",
    "PUT",
    "os-quota-sets/<of_tenant>",
    entity="quota_set",
    right=Right.QUOTAS,
)
async def update_quota(context: NovaContext, of_tenant: str, body: ChangeQuota) -> ChangedQuota:
    """Set a tenant's quota; limits that the request does not name stay."""
    bounds = body.model_dump(exclude_none=True)
    return {"quota_set": _shown(await context.services.quotas.set(_tenant(of_tenant), bounds))}


def _tenant(text: str) -> str:
    """Return the name of a tenant from a path.

    :raises NotFound: if the name is longer than any tenant's name.
    """
    if len(text) > 255:
        raise NotFound
    return text


def _shown(value: Quota) -> QuotaShown:
    return {
        "volumes": value.volumes,
        "gigabytes": value.gigabytes,
        "snapshots": value.snapshots,
        "instances": value.instances,
        "key_pairs": value.key_pairs,
    }


OPERATIONS = (show_quota, show_default_quota, update_quota)
