"""JSON views of servers, with Nova's keys (specification, sections 5.9 and 5.12)."""

from __future__ import annotations

from hashlib import sha224
from typing import Final, Literal, NotRequired

from typing_extensions import TypedDict

from bootvol.api.nova.links import NUMBERED, BaseUri
from bootvol.api.nova.views import AnyId, Count, Moment, Nothing
from bootvol.api.paging import Link
from bootvol.api.times import to_seconds
from bootvol.lifecycle import Status
from bootvol.model import Flavor, Server

ServerStatus = Literal["BUILD", "ACTIVE", "SHUTOFF", "REBOOT", "HARD_REBOOT", "ERROR"]
VmState = Literal["building", "active", "stopped", "error"]
TaskState = (
    Literal["deleting", "powering-off", "powering-on", "rebooting", "rebooting_hard", "spawning"]
    | None
)


class Ref(TypedDict):
    """A reference to a resource, with links."""

    id: str
    links: list[Link]


class FaultShown(TypedDict):
    """The reason for a server's status ``ERROR`` or for the failure of the last power action.

    Power actions are stop, start and reboot.
    """

    message: str
    code: Literal[500]
    created: Moment


class VolumeRef(TypedDict):
    """A volume attached to a server."""

    id: AnyId


class ServerBrief(TypedDict):
    """A server in a list without details."""

    id: AnyId
    name: str
    links: list[Link]


ServerShown = TypedDict(
    "ServerShown",
    {
        "id": AnyId,
        "uuid": NotRequired[str],
        "name": str,
        "status": ServerStatus,
        "OS-DCF:diskConfig": Literal["MANUAL"],
        "OS-EXT-AZ:availability_zone": str,
        "OS-EXT-STS:power_state": Literal[0, 1, 4],
        "OS-EXT-STS:task_state": TaskState,
        "OS-EXT-STS:vm_state": VmState,
        "OS-SRV-USG:launched_at": str | None,
        "OS-SRV-USG:terminated_at": None,
        "tenant_id": str,
        "user_id": str,
        "created": Moment,
        "updated": Moment,
        "progress": Count,
        "flavor": Ref,
        "image": Literal[""],
        "key_name": str | None,
        "config_drive": Literal["True", ""],
        "hostId": str,
        "accessIPv4": str,
        "accessIPv6": str,
        "addresses": dict[str, str],
        "metadata": dict[str, str],
        "os-extended-volumes:volumes_attached": list[VolumeRef],
        "security_groups": Nothing,
        "links": list[Link],
        "fault": NotRequired[FaultShown],
    },
)


#: A flavor: a size of servers.
FlavorShown = TypedDict(
    "FlavorShown",
    {
        "id": str,
        "name": str,
        "ram": Count,
        "vcpus": Count,
        "disk": Count,
        "swap": str,
        "rxtx_factor": float,
        "OS-FLV-DISABLED:disabled": Literal[False],
        "OS-FLV-EXT-DATA:ephemeral": Count,
        "os-flavor-access:is_public": Literal[True],
        "links": list[Link],
    },
)


class FlavorBrief(TypedDict):
    """A flavor in a list without details."""

    id: str
    name: str
    links: list[Link]


class ConsoleShown(TypedDict):
    """The output of a server's serial console."""

    output: str


class Servers(TypedDict):
    servers: list[ServerBrief]
    servers_links: NotRequired[list[Link]]


class ServersInDetail(TypedDict):
    servers: list[ServerShown]
    servers_links: NotRequired[list[Link]]


class OneServer(TypedDict):
    server: ServerShown


class MetadataShown(TypedDict):
    metadata: dict[str, str]


class MetaShown(TypedDict):
    meta: dict[str, str]


class Flavors(TypedDict):
    flavors: list[FlavorBrief]
    flavors_links: NotRequired[list[Link]]


class FlavorsInDetail(TypedDict):
    flavors: list[FlavorShown]
    flavors_links: NotRequired[list[Link]]


class OneFlavor(TypedDict):
    flavor: FlavorShown


class FlavorSpecs(TypedDict):
    extra_specs: dict[str, str]


def server(value: Server, running: bool, base: BaseUri, zone: str) -> ServerShown:
    """Return the view of a server.

    :param running: whether the server runs; its guest may have turned it off.
    :param zone: the availability zone.
    """
    created = to_seconds(value.created_at)
    updated = to_seconds(value.updated_at or value.created_at)
    error, is_built = value.error, value.status is not Status.CREATING
    has_failed = value.status is Status.ERROR
    shown: ServerShown = {
        "id": base.id(value.id, value.uuid),
        "name": value.display_name,
        "status": status(value, running),
        "OS-DCF:diskConfig": "MANUAL",
        "OS-EXT-AZ:availability_zone": zone,
        "OS-EXT-STS:power_state": (1 if running else 4) if is_built and not has_failed else 0,
        "OS-EXT-STS:task_state": _TASKS.get(value.status),
        "OS-EXT-STS:vm_state": _vm_state(value.status, running),
        "OS-SRV-USG:launched_at": None,
        "OS-SRV-USG:terminated_at": None,
        "tenant_id": value.tenant,
        "user_id": value.user,
        "created": created,
        "updated": updated,
        "progress": 100 if is_built else 0,
        "flavor": {"id": value.flavor_id, "links": base.links("flavors", value.flavor_id)[1:]},
        "image": "",
        "key_name": value.key.name if value.key else None,
        "config_drive": "True" if value.config_drive else "",
        "hostId": _host(value),
        "accessIPv4": "",
        "accessIPv6": "",
        "addresses": {},
        "metadata": dict(value.metadata),
        "os-extended-volumes:volumes_attached": [{"id": base.id(*each)} for each in value.volumes],
        "security_groups": [],
        "links": _links(value, base),
    }
    if base.version == NUMBERED:
        shown["uuid"] = value.uuid
    if error is not None:
        shown["fault"] = {"message": error.message, "code": 500, "created": updated}
    return shown


def _host(value: Server) -> str:
    """Return the id of a server's host.  As in Nova, no two tenants see the same id of a host.

    Otherwise tenants would learn whose servers share a machine.
    """
    if value.daemon is None:
        return ""
    return sha224(f"{value.tenant}{value.daemon}".encode()).hexdigest()


def brief_server(value: Server, base: BaseUri) -> ServerBrief:
    """Return the view of a server in a list without details."""
    return {
        "id": base.id(value.id, value.uuid),
        "name": value.display_name,
        "links": _links(value, base),
    }


def _links(value: Server, base: BaseUri) -> list[Link]:
    return base.links("servers", base.id(value.id, value.uuid))


_TASKS: Final[dict[Status, TaskState]] = {
    Status.CREATING: "spawning",
    Status.DELETING: "deleting",
    Status.STOPPING: "powering-off",
    Status.STARTING: "powering-on",
    Status.REBOOTING: "rebooting",
    Status.RESETTING: "rebooting_hard",
}


def status(value: Server, running: bool) -> ServerStatus:
    """Return Nova's status of a server."""
    found: dict[Status, ServerStatus] = {
        Status.CREATING: "BUILD",
        Status.ERROR: "ERROR",
        Status.REBOOTING: "REBOOT",
        Status.RESETTING: "HARD_REBOOT",
    }
    return found.get(value.status, "ACTIVE" if _is_on(value.status, running) else "SHUTOFF")


def _vm_state(status: Status, running: bool) -> VmState:
    found: dict[Status, VmState] = {Status.CREATING: "building", Status.ERROR: "error"}
    return found.get(status, "active" if _is_on(status, running) else "stopped")


def _is_on(status: Status, running: bool) -> bool:
    """Tell whether a server counts as turned on.

    As in Nova, the state changes only after the end of the task.  So a client that waits for the
    new state may request the next change at once.
    """
    was = {Status.STOPPING: True, Status.STARTING: False, Status.REBOOTING: True}
    return was.get(status, running)


def flavor(value: Flavor, base: BaseUri) -> FlavorShown:
    """Return the view of a flavor."""
    return {
        "id": value.id,
        "name": value.name,
        "ram": value.ram_mib,
        "vcpus": value.cpus,
        "disk": 0,
        "swap": "",
        "rxtx_factor": 1.0,
        "OS-FLV-DISABLED:disabled": False,
        "OS-FLV-EXT-DATA:ephemeral": 0,
        "os-flavor-access:is_public": True,
        "links": base.links("flavors", value.id),
    }


def brief_flavor(value: Flavor, base: BaseUri) -> FlavorBrief:
    """Return the view of a flavor in a list without details."""
    return {"id": value.id, "name": value.name, "links": base.links("flavors", value.id)}
