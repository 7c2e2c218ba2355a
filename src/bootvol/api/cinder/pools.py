"""Operations of pools and hosts, for operators: the stores, their space and their use."""

from __future__ import annotations

from typing import Final, NotRequired

from typing_extensions import TypedDict

from bootvol.api.cinder.context import CinderContext
from bootvol.api.cinder.matching import flag
from bootvol.api.cinder.services import VOLUME, host_of, listed, when
from bootvol.api.filters import text
from bootvol.api.operations import operation
from bootvol.errors import NotFound
from bootvol.model import GIB, Place, StoreUsage
from bootvol.policy import Right
from bootvol.service import abilities


class PoolShown(TypedDict):
    """A store, with figures if the request asks for details."""

    name: str
    capabilities: NotRequired[dict[str, object]]


class Pools(TypedDict):
    pools: list[PoolShown]


class Capabilities(TypedDict):
    """The abilities of a backend, as Cinder describes them."""

    namespace: str
    vendor_name: str
    volume_backend_name: str
    pool_name: None
    driver_version: str
    storage_protocol: str
    display_name: None
    description: None
    visibility: None
    replication_targets: list[None]
    properties: dict[str, object]


HostShown = TypedDict(
    "HostShown",
    {
        "host_name": str,
        "service": str,
        "zone": str,
        "service-status": str,
        "service-state": str,
        "last-update": str | None,
    },
)


class Hosts(TypedDict):
    hosts: list[HostShown]


class ResourceShown(TypedDict):
    """The usage of a store by one project, or by all."""

    host: str
    project: str
    volume_count: str
    total_volume_gb: str
    snapshot_count: str
    total_snapshot_gb: str


class Resource(TypedDict):
    resource: ResourceShown


class OneHost(TypedDict):
    host: list[Resource]


def _pool(place: Place) -> str:
    return f"{host_of(place)}#{place.backend}"


@operation(
    "pools_list_pools",
    "GET",
    "scheduler-stats/get_pools",
    right=Right.SERVICES,
    query=("detail", "name"),
)
async def list_pools(context: CinderContext) -> Pools:
    """List the stores that this daemon reaches; with ``detail``, also their space in GiB."""
    details = flag(text(context.request, b"detail") or "false", "detail")
    name = text(context.request, b"name")
    shown: list[PoolShown] = []
    for place in await context.services.overview.places():
        if not place.here or name not in (None, _pool(place)):
            continue
        pool: PoolShown = {"name": _pool(place)}
        if details:
            pool["capabilities"] = await _figures(context, place)
        shown.append(pool)
    return {"pools": shown}


async def _figures(context: CinderContext, place: Place) -> dict[str, object]:
    overview = context.services.overview
    room, used = await overview.room(place), await overview.usage(place)
    return {
        **abilities.of_backend(place.backend),
        # Cinder's word for a store that does not tell.
        "total_capacity_gb": "unknown" if room is None else round(room.total / GIB, 2),
        "free_capacity_gb": "unknown" if room is None else round(room.free / GIB, 2),
        "allocated_capacity_gb": sum(each.volumes_gib for each in used),
        "backend_state": "up" if place.works else "down",
        "timestamp": when(place.seen_at),
        "filter_function": None,
        "goodness_function": None,
    }


@operation("pools_show_capabilities", "GET", "capabilities/<host>", right=Right.SERVICES)
async def show_capabilities(context: CinderContext, host: str) -> Capabilities:
    """Show the abilities of a backend."""
    place = await _place(context, host)
    found = abilities.of_backend(place.backend)
    return {
        "namespace": f"OS::Storage::Capabilities::{host}",
        "vendor_name": str(found["vendor_name"]),
        "volume_backend_name": place.backend,
        "pool_name": None,
        "driver_version": str(found["driver_version"]),
        "storage_protocol": str(found["storage_protocol"]),
        "display_name": None,
        "description": None,
        "visibility": None,
        "replication_targets": [],
        "properties": {},
    }


async def _place(context: CinderContext, host: str) -> Place:
    """Return the store that a client names by its service or its pool.

    :raises NotFound: if there is no such store.
    """
    for place in await context.services.overview.places():
        if host in (host_of(place), _pool(place)):
            return place
    raise NotFound(f"Service {VOLUME} could not be found on host {host[:255]}.")


@operation("hosts_list_hosts", "GET", "os-hosts", right=Right.SERVICES, query=("zone", "service"))
async def list_hosts(context: CinderContext) -> Hosts:
    """List the hosts of all services."""
    wanted = text(context.request, b"service")
    return {
        "hosts": [
            {
                "host_name": each["host"],
                "service": each["binary"],
                "zone": each["zone"],
                "service-status": "available" if each["state"] == "up" else "unavailable",
                "service-state": "enabled",
                "last-update": each["updated_at"],
            }
            for each in await listed(context)
            if wanted in (None, each["binary"])
        ]
    }


@operation("hosts_show_host", "GET", "os-hosts/<host>", right=Right.SERVICES)
async def show_host(context: CinderContext, host: str) -> OneHost:
    """Show how much of a store each project uses."""
    used = await context.services.overview.usage(await _place(context, host))
    total = StoreUsage(
        "(total)",
        sum(each.volumes for each in used),
        sum(each.volumes_gib for each in used),
        sum(each.snapshots for each in used),
        sum(each.snapshots_gib for each in used),
    )
    return {"host": [{"resource": _resource(host, each)} for each in (total, *used)]}


def _resource(host: str, used: StoreUsage) -> ResourceShown:
    return {
        "host": host,
        "project": used.tenant,
        "volume_count": str(used.volumes),
        "total_volume_gb": str(used.volumes_gib),
        "snapshot_count": str(used.snapshots),
        "total_snapshot_gb": str(used.snapshots_gib),
    }


OPERATIONS: Final = (list_pools, show_capabilities, list_hosts, show_host)
