"""What the API shows of servers (reference, sections 5.9 and 5.12)."""

from __future__ import annotations

from typing import Final, Literal

from typing_extensions import TypedDict

from bootvol.api.nova.views import Count, Id, Moment, Nothing
from bootvol.lifecycle import Status
from bootvol.model import Flavor, Server

_CREATED: Final = "%Y-%m-%dT%H:%M:%SZ"

ServerStatus = Literal["BUILD", "ACTIVE", "SHUTOFF", "ERROR"]


class Ref(TypedDict):
    """What a link leads to."""

    id: str
    links: Nothing


class FaultShown(TypedDict):
    """Why a server is in ``ERROR``."""

    message: str
    code: Literal[500]
    created: Moment


ServerShown = TypedDict(
    "ServerShown",
    {
        "id": Id,
        "uuid": str,
        "name": str,
        "status": ServerStatus,
        "OS-EXT-STS:task_state": Literal["deleting"] | None,
        "tenant_id": str,
        "user_id": str,
        "created": Moment,
        "updated": Moment,
        "progress": Count,
        "flavor": Ref,
        "image": None,
        "key_name": None,
        "hostId": str,
        "accessIPv4": str,
        "accessIPv6": str,
        "addresses": dict[str, str],
        "metadata": dict[str, str],
        "links": Nothing,
        "fault": FaultShown | None,
    },
)


class FlavorShown(TypedDict):
    """How large a server may be asked for."""

    id: str
    name: str
    ram: Count
    vcpus: Count
    disk: Count
    swap: str
    links: Nothing


class ConsoleShown(TypedDict):
    """What a server has written to its serial console."""

    output: str


class Servers(TypedDict):
    servers: list[ServerShown]


class OneServer(TypedDict):
    server: ServerShown


class Flavors(TypedDict):
    flavors: list[FlavorShown]


class OneFlavor(TypedDict):
    flavor: FlavorShown


class Keypairs(TypedDict):
    keypairs: Nothing


def server(value: Server, running: bool) -> ServerShown:
    """Show a server.

    :param running: whether it runs: its guest may have turned it off.
    """
    created = value.created_at.strftime(_CREATED)
    error = value.error
    return {
        "id": value.id,
        "uuid": value.uuid,
        "name": value.display_name,
        "status": _status(value.status, running),
        "OS-EXT-STS:task_state": "deleting" if value.status is Status.DELETING else None,
        "tenant_id": value.tenant,
        "user_id": value.user,
        "created": created,
        "updated": created,
        "progress": 0 if value.status is Status.CREATING else 100,
        "flavor": {"id": value.flavor_id, "links": []},
        "image": None,
        "key_name": None,
        "hostId": value.daemon or "",
        "accessIPv4": "",
        "accessIPv6": "",
        "addresses": {},
        "metadata": {},
        "links": [],
        "fault": {"message": error.message, "code": 500, "created": created} if error else None,
    }


def _status(status: Status, running: bool) -> ServerStatus:
    if status is Status.CREATING:
        return "BUILD"
    if status is Status.ERROR:
        return "ERROR"
    return "ACTIVE" if running else "SHUTOFF"


def flavor(value: Flavor) -> FlavorShown:
    """Show a flavor."""
    return {
        "id": value.id,
        "name": value.name,
        "ram": value.ram_mib,
        "vcpus": value.cpus,
        "disk": 0,
        "swap": "",
        "links": [],
    }
