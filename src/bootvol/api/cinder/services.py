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
    zone, overview = context.services.volumes.zone, context.services.overview
    shown: list[ServiceShown] = []
    for place in await overview.places():
        each = _service(context, VOLUME, host_of(place), zone, place.runs, place.seen_at)
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
    """Tell that a service is on: no service can be off."""
    host, binary = await _named(context, body)
    return {"host": host, "service": "", "binary": binary, "status": "enabled", "disabled": False}


async def _named(context: CinderContext, body: Anything) -> tuple[str, str]:
    """Return the host and the binary of the service that a body names.

    :raises InvalidRequest: if the body names no service.
    :raises NotFound: if there is no such service.
    """
    host, binary = body.root.get("host"), body.root.get("binary") or body.root.get("service")
    if not isinstance(host, str) or not isinstance(binary, str):
        raise InvalidRequest("Missing required element 'host' or 'binary' in request body.")
    if (host, binary) not in {(each["host"], each["binary"]) for each in await listed(context)}:
        raise NotFound(f"Service {binary[:255]} could not be found on host {host[:255]}.")
    return host, binary


async def _check_reason(context: CinderContext, body: Anything) -> None:
    """Check the service and the reason that a body names.

    :raises InvalidRequest: if the body names no service, or no reason.
    :raises NotFound: if there is no such service.
    """
    reason = body.root.get("disabled_reason")
    if not isinstance(reason, str) or not 0 < len(reason) <= 255:
        why = f"{reason!r} is not of type 'string', or not of 1 to 255 characters"
        raise InvalidRequest(refusal("disabled_reason", reason, why))
    await _named(context, body)


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


_ALWAYS_ON: Final = (
    "A running daemon takes work from all projects: stop the daemon, or remove the backend from its"
    " configuration."
)
_NO_REPLICAS: Final = "Backends have no replicas: there is nothing to freeze or to fail over to."
_LOGS: Final = "Set the level of the log in the daemon's configuration."
_REFUSED: Final = (
    _refused("services_disable_service", "os-services/disable", _ALWAYS_ON, _named),
    _refused(
        "services_disable_with_reason", "os-services/disable-log-reason", _ALWAYS_ON, _check_reason
    ),
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
    raise NotServed(_ALWAYS_ON)


@operation(
    "workers_clean_up", "POST", "workers/cleanup", status=202, since=24, right=Right.SERVICES
)
async def clean_up(context: CinderContext, body: Anything) -> Cleaned:
    """Clean nothing up: each daemon continues the work of ended daemons by itself."""
    return {"cleaning": [], "unavailable": []}


OPERATIONS: Final = (
    list_services,
    enable_service,
    *_REFUSED,
    clean_up,
    change_host,
)
