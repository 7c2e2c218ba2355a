"""Operations of services, pools and hosts: the daemons and their stores, for operators.

Each store of a backend stands for one of Cinder's volume services, with one pool.  The daemons
themselves stand for its schedulers.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, NotRequired

from typing_extensions import TypedDict

from bootvol.api.cinder.absent import Anything
from bootvol.api.cinder.context import CinderContext
from bootvol.api.cinder.matching import flag
from bootvol.api.cinder.views import service_host, time
from bootvol.api.filters import text
from bootvol.api.operations import Operation, operation
from bootvol.errors import InvalidRequest, NotFound, NotServed
from bootvol.model import GIB, Daemon, Place, StoreUsage
from bootvol.policy import Right

#: Cinder's names of the programs.
_VOLUME: Final = "cinder-volume"
_SCHEDULER: Final = "cinder-scheduler"
_VENDOR: Final = "bootvol"
_VERSION: Final = "1.0"


class ServiceShown(TypedDict):
    """A service: the daemons that reach a store, or a daemon."""

    binary: str
    host: str
    zone: str
    status: str
    state: str
    updated_at: str | None
    disabled_reason: None
    cluster: NotRequired[None]
    replication_status: NotRequired[str]
    active_backend_id: NotRequired[None]
    frozen: NotRequired[bool]
    backend_state: NotRequired[str]


class Services(TypedDict):
    services: list[ServiceShown]


class Changed(TypedDict):
    """A service that is on."""

    host: str
    service: str
    binary: str
    status: str
    disabled: bool


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


class Cleaned(TypedDict):
    """The services that clean up, and those that cannot."""

    cleaning: list[None]
    unavailable: list[None]


def _when(seen: datetime | None) -> str | None:
    return None if seen is None else time(seen)


def _host(place: Place) -> str:
    return service_host(place.host, place.backend)


def _pool(place: Place) -> str:
    return f"{_host(place)}#{place.backend}"


async def _services(context: CinderContext) -> list[ServiceShown]:
    """Return all services: the stores, and then the daemons."""
    zone, overview = context.services.volumes.zone, context.services.overview
    shown: list[ServiceShown] = []
    for place in await overview.places():
        each = _service(context, _VOLUME, _host(place), zone, place.runs, place.seen_at)
        each["replication_status"] = "disabled"
        each["active_backend_id"] = None
        each["frozen"] = False
        if context.has(49):
            # Another daemon's backend counts as its daemon does.
            up = place.works if place.here else place.runs
            each["backend_state"] = "up" if up else "down"
        shown.append(each)
    hosts: dict[str, Daemon] = {}
    for daemon in await overview.daemons():
        last = hosts.get(daemon.host)
        if last is None or (daemon.runs, daemon.seen_at) > (last.runs, last.seen_at):
            hosts[daemon.host] = daemon
    for host, daemon in hosts.items():
        shown.append(_service(context, _SCHEDULER, host, zone, daemon.runs, daemon.seen_at))
    return shown


def _service(
    context: CinderContext, binary: str, host: str, zone: str, runs: bool, seen: datetime | None
) -> ServiceShown:
    shown: ServiceShown = {
        "binary": binary,
        "host": host,
        "zone": zone,
        "status": "enabled",
        "state": "up" if runs else "down",
        "updated_at": _when(seen),
        "disabled_reason": None,
    }
    if context.has(7):
        shown["cluster"] = None
    return shown


@operation(
    "services_list_services",
    "GET",
    "os-services",
    right=Right.SERVICES,
    query=("host", "binary"),
)
async def list_services(context: CinderContext) -> Services:
    """List the daemons, and the backends that they reach."""
    host, binary = text(context.request, b"host"), text(context.request, b"binary")
    return {
        "services": [
            each
            for each in await _services(context)
            if binary in (None, "", each["binary"])
            and (not host or host in (each["host"], each["host"].partition("@")[0]))
        ]
    }


@operation(
    "services_enable_service",
    "PUT",
    "os-services/enable",
    right=Right.SERVICES,
    refusals=(404,),
)
async def enable_service(context: CinderContext, body: Anything) -> Changed:
    """Tell that a service is on: no service can be off."""
    host, binary = body.root.get("host"), body.root.get("binary") or body.root.get("service")
    if not isinstance(host, str) or not isinstance(binary, str):
        raise InvalidRequest("Missing required element 'host' or 'binary' in request body.")
    if (host, binary) not in {(each["host"], each["binary"]) for each in await _services(context)}:
        raise NotFound(f"Service {binary[:255]} could not be found on host {host[:255]}.")
    return {"host": host, "service": "", "binary": binary, "status": "enabled", "disabled": False}


def _refused(name: str, path: str, reason: str, since: int = 0, /) -> Operation:
    """Return the operation of a call that bootvol cannot honour."""

    @operation(name, "PUT", path, right=Right.SERVICES, refusals=(501,), since=since)
    async def refuse(context: CinderContext, body: Anything) -> dict[str, None]:
        """Refuse the call, with the reason."""
        raise NotServed(reason)

    return refuse


_ALWAYS_ON: Final = (
    "A running daemon takes work from all projects: stop the daemon, or remove the backend from its"
    " configuration."
)
_NO_REPLICAS: Final = "Backends have no replicas: there is nothing to freeze or to fail over to."
_LOGS: Final = "Set the level of the log in the daemon's configuration."
_REFUSED: Final = (
    _refused("services_disable_service", "os-services/disable", _ALWAYS_ON),
    _refused("services_disable_with_reason", "os-services/disable-log-reason", _ALWAYS_ON),
    _refused("services_freeze_host", "os-services/freeze", _NO_REPLICAS),
    _refused("services_thaw_host", "os-services/thaw", _NO_REPLICAS),
    _refused("services_fail_over_host", "os-services/failover_host", _NO_REPLICAS),
    _refused("services_fail_over", "os-services/failover", _NO_REPLICAS, 26),
    _refused("services_get_log", "os-services/get-log", _LOGS, 32),
    _refused("services_set_log", "os-services/set-log", _LOGS, 32),
)


@operation("hosts_change_host", "PUT", "os-hosts/<host>", right=Right.SERVICES, refusals=(501,))
async def change_host(context: CinderContext, host: str, body: Anything) -> dict[str, None]:
    """Refuse to turn a host off, with the reason."""
    raise NotServed(_ALWAYS_ON)


@operation(
    "workers_clean_up", "POST", "workers/cleanup", status=202, since=24, right=Right.SERVICES
)
async def clean_up(context: CinderContext, body: Anything) -> Cleaned:
    """Clean nothing up: each daemon continues the work of ended daemons by itself."""
    return {"cleaning": [], "unavailable": []}


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
        "vendor_name": _VENDOR,
        "driver_version": _VERSION,
        "storage_protocol": _VENDOR,
        "volume_backend_name": place.backend,
        # Cinder's word for a store that does not tell.
        "total_capacity_gb": "unknown" if room is None else round(room.total / GIB, 2),
        "free_capacity_gb": "unknown" if room is None else round(room.free / GIB, 2),
        "allocated_capacity_gb": sum(each.volumes_gib for each in used),
        "reserved_percentage": 0,
        "multiattach": False,
        "qos_support": True,
        "replication_enabled": False,
        "backend_state": "up" if place.works else "down",
        "timestamp": _when(place.seen_at),
        "filter_function": None,
        "goodness_function": None,
    }


@operation("pools_show_capabilities", "GET", "capabilities/<host>", right=Right.SERVICES)
async def show_capabilities(context: CinderContext, host: str) -> Capabilities:
    """Show the abilities of a backend."""
    place = await _place(context, host)
    return {
        "namespace": f"OS::Storage::Capabilities::{host}",
        "vendor_name": _VENDOR,
        "volume_backend_name": place.backend,
        "pool_name": None,
        "driver_version": _VERSION,
        "storage_protocol": _VENDOR,
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
        if host in (_host(place), _pool(place)):
            return place
    raise NotFound(f"Service {_VOLUME} could not be found on host {host[:255]}.")


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
            for each in await _services(context)
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


OPERATIONS: Final = (
    list_services,
    enable_service,
    *_REFUSED,
    clean_up,
    list_pools,
    show_capabilities,
    list_hosts,
    show_host,
    change_host,
)
