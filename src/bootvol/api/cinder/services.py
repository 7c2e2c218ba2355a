"""Operations of services: the daemons and their stores, for operators.

Each store of a backend stands for one of Cinder's volume services, with one pool.  The daemons
themselves stand for its schedulers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final, NotRequired

from typing_extensions import TypedDict

from bootvol.api.cinder.absent import Anything
from bootvol.api.cinder.context import CinderContext
from bootvol.api.cinder.views import service_host, time
from bootvol.api.cinder.words import refusal
from bootvol.api.filters import text
from bootvol.api.operations import Operation, operation
from bootvol.errors import InvalidRequest, NotFound, NotServed
from bootvol.model import Daemon, Place
from bootvol.policy import Right

#: Cinder's names of the programs.
VOLUME: Final = "cinder-volume"
_SCHEDULER: Final = "cinder-scheduler"


class ServiceShown(TypedDict):
    """A service: the daemons that reach a store, or a daemon."""

    binary: str
    host: str
    zone: str
    status: str
    state: str
    updated_at: str | None
    disabled_reason: str | None
    cluster: NotRequired[None]
    replication_status: NotRequired[str]
    active_backend_id: NotRequired[None]
    frozen: NotRequired[bool]
    backend_state: NotRequired[str]


class Services(TypedDict):
    services: list[ServiceShown]


class Changed(TypedDict):
    """A service that was enabled or disabled."""

    host: str
    service: str
    binary: str
    status: str
    disabled: bool
    disabled_reason: NotRequired[str]


class Cleaned(TypedDict):
    """The services that clean up, and those that cannot."""

    cleaning: list[None]
    unavailable: list[None]


def when(seen: datetime | None) -> str | None:
    """Return the time of the last sign of life; None for no sign."""
    return None if seen is None else time(seen)


def host_of(place: Place) -> str:
    """Return the host of a store's service, in Cinder's form."""
    return service_host(place.host, place.backend)


async def listed(context: CinderContext) -> list[ServiceShown]:
    """Return all services: the stores, and then the daemons."""
    return [each for _, each in await _all(context)]


async def _all(context: CinderContext) -> list[tuple[tuple[str, str], ServiceShown]]:
    """Return all services, each with its backend and host."""
    zone, overview = context.services.volumes.zone, context.services.overview
    off = await overview.disabled_services()
    shown: list[tuple[tuple[str, str], ServiceShown]] = []

    def add(
        key: tuple[str, str], binary: str, host: str, runs: bool, seen: datetime | None
    ) -> ServiceShown:
        each = _service(context, binary, host, zone, runs, seen)
        if key in off:
            each["status"], each["disabled_reason"] = "disabled", off[key]
        shown.append((key, each))
        return each

    for place in await overview.places():
        key = (place.backend, place.host)
        each = add(key, VOLUME, host_of(place), place.runs, place.seen_at)
        each["replication_status"] = "disabled"
        each["active_backend_id"] = None
        each["frozen"] = False
        if context.has(49):
            # Another daemon's backend counts as its daemon does.
            up = place.works if place.here else place.runs
            each["backend_state"] = "up" if up else "down"
    hosts: dict[str, Daemon] = {}
    for daemon in await overview.daemons():
        last = hosts.get(daemon.host)
        if last is None or (daemon.runs, daemon.seen_at) > (last.runs, last.seen_at):
            hosts[daemon.host] = daemon
    for host, daemon in hosts.items():
        add(("", host), _SCHEDULER, host, daemon.runs, daemon.seen_at)
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
        "updated_at": when(seen),
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
            for each in await listed(context)
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
    """Let volumes be begun by a service."""
    key, host, binary = await _named(context, body)
    await context.services.overview.enable(key)
    return {"host": host, "service": "", "binary": binary, "status": "enabled", "disabled": False}


@operation(
    "services_disable_service",
    "PUT",
    "os-services/disable",
    right=Right.SERVICES,
    refusals=(404,),
)
async def disable_service(context: CinderContext, body: Anything) -> Changed:
    """Let no new volume be begun by a service; work that has begun goes on."""
    return await _disable(context, body, None)


@operation(
    "services_disable_with_reason",
    "PUT",
    "os-services/disable-log-reason",
    right=Right.SERVICES,
    refusals=(404,),
)
async def disable_with_reason(context: CinderContext, body: Anything) -> Changed:
    """Do as the call without a reason, and show operators the reason."""
    reason = body.root.get("disabled_reason")
    if not isinstance(reason, str) or not 0 < len(reason) <= 255:
        why = f"{reason!r} is not of type 'string', or not of 1 to 255 characters"
        raise InvalidRequest(refusal("disabled_reason", reason, why))
    shown = await _disable(context, body, reason)
    return {**shown, "disabled_reason": reason}


async def _disable(context: CinderContext, body: Anything, reason: str | None) -> Changed:
    key, host, binary = await _named(context, body)
    await context.services.overview.disable(key, reason)
    return {"host": host, "service": "", "binary": binary, "status": "disabled", "disabled": True}


async def _named(context: CinderContext, body: Anything) -> tuple[tuple[str, str], str, str]:
    """Return the backend and host of the service that a body names; and the names in the body.

    :raises InvalidRequest: if the body names no service.
    :raises NotFound: if there is no such service.
    """
    host, binary = body.root.get("host"), body.root.get("binary") or body.root.get("service")
    if not isinstance(host, str) or not isinstance(binary, str):
        raise InvalidRequest("Missing required element 'host' or 'binary' in request body.")
    for key, each in await _all(context):
        if (host, binary) == (each["host"], each["binary"]):
            return key, host, binary
    raise NotFound(f"Service {binary[:255]} could not be found on host {host[:255]}.")


async def _check_host(context: CinderContext, body: Anything) -> None:
    """Check the host that a body names.

    :raises InvalidRequest: if there is no such host.
    """
    host = body.root.get("host")
    if host not in [each["host"] for each in await listed(context)]:
        raise InvalidRequest(f"Invalid input received: Host {str(host)[:255]} could not be found.")


async def _check_nothing(context: CinderContext, body: Anything) -> None:
    return None


def _refused(
    name: str,
    path: str,
    reason: str,
    check: Callable[[CinderContext, Anything], Awaitable[object]] = _check_nothing,
    since: int = 0,
    /,
) -> Operation:
    """Return the operation of a call that bootvol cannot honour.

    :param check: checks the body first, so that wrong names get their own errors.
    """

    @operation(name, "PUT", path, right=Right.SERVICES, refusals=(404, 501), since=since)
    async def refuse(context: CinderContext, body: Anything) -> dict[str, None]:
        """Refuse the call, with the reason."""
        await check(context, body)
        raise NotServed(reason)

    return refuse


_BY_SERVICE: Final = "Disable the services of the host (os-services/disable), or stop the daemon."
_NO_REPLICAS: Final = "Backends have no replicas: there is nothing to freeze or to fail over to."
_LOGS: Final = "Set the level of the log in the daemon's configuration."
_REFUSED: Final = (
    _refused("services_freeze_host", "os-services/freeze", _NO_REPLICAS, _check_host),
    _refused("services_thaw_host", "os-services/thaw", _NO_REPLICAS, _check_host),
    _refused("services_fail_over_host", "os-services/failover_host", _NO_REPLICAS),
    _refused("services_fail_over", "os-services/failover", _NO_REPLICAS, _check_nothing, 26),
    _refused("services_get_log", "os-services/get-log", _LOGS, _check_nothing, 32),
    _refused("services_set_log", "os-services/set-log", _LOGS, _check_nothing, 32),
)


@operation("hosts_change_host", "PUT", "os-hosts/<host>", right=Right.SERVICES, refusals=(501,))
async def change_host(context: CinderContext, host: str, body: Anything) -> dict[str, None]:
    """Refuse to turn a host off, with the reason."""
    raise NotServed(_BY_SERVICE)


@operation(
    "workers_clean_up", "POST", "workers/cleanup", status=202, since=24, right=Right.SERVICES
)
async def clean_up(context: CinderContext, body: Anything) -> Cleaned:
    """Clean nothing up: each daemon continues the work of ended daemons by itself."""
    return {"cleaning": [], "unavailable": []}


OPERATIONS: Final = (
    list_services,
    enable_service,
    disable_service,
    disable_with_reason,
    *_REFUSED,
    clean_up,
    change_host,
)
