"""Operations of flavors and os-availability-zone, for clients that prepare to boot a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from typing_extensions import TypedDict

from bootvol.api.filters import Filter, filtered, number
from bootvol.api.nova import server_views
from bootvol.api.nova.context import NovaContext
from bootvol.api.operations import operation
from bootvol.api.paging import Link, paged
from bootvol.errors import FlavorNotFound, NotFound
from bootvol.model import Flavor

_QUERY: Final = ("minDisk", "minRam", "limit", "marker", "offset")
_REFUSED: Final = ("sort_key", "sort_dir")


class ZoneState(TypedDict):
    available: bool


class ZoneShown(TypedDict):
    """An availability zone."""

    zoneName: str
    zoneState: ZoneState
    hosts: None


class Zones(TypedDict):
    availabilityZoneInfo: list[ZoneShown]


@operation("flavors_list_flavors", "GET", "flavors", query=_QUERY)
async def list_flavors(context: NovaContext) -> server_views.Flavors:
    """List the flavors (sizes of servers): ids and names."""
    listed, links = _listed(context)
    shown: server_views.Flavors = {
        "flavors": [server_views.brief_flavor(each, context.base) for each in listed]
    }
    if links:
        shown["flavors_links"] = links
    return shown


@operation("flavors_list_flavors_in_detail", "GET", "flavors/detail", query=_QUERY)
async def list_flavors_in_detail(context: NovaContext) -> server_views.FlavorsInDetail:
    """List the flavors (sizes of servers) with details."""
    listed, links = _listed(context)
    shown: server_views.FlavorsInDetail = {
        "flavors": [server_views.flavor(each, context.base) for each in listed]
    }
    if links:
        shown["flavors_links"] = links
    return shown


def _listed(context: NovaContext) -> tuple[Sequence[Flavor], list[Link]]:
    found = list(context.services.servers.flavors.values())
    return paged(
        context.request, filtered(context.request, found, _FITS, _REFUSED), lambda each: each.id
    )


_FITS: Final[Mapping[str, Filter[Flavor]]] = {
    # Servers have no disks other than their volumes.
    "minDisk": lambda _, text: number(text, "minDisk") == 0,
    "minRam": lambda each, text: each.ram_mib >= number(text, "minRam"),
    # All flavors are public.
    "is_public": lambda _, text: text.strip().lower() in {"1", "t", "true", "yes", "none", ""},
}


@operation("flavors_show_flavor", "GET", "flavors/<flavor_id>")
async def show_flavor(context: NovaContext, flavor_id: str) -> server_views.OneFlavor:
    """Show a flavor."""
    return {"flavor": server_views.flavor(_flavor(context, flavor_id), context.base)}


@operation("flavors_list_extra_specs", "GET", "flavors/<flavor_id>/os-extra_specs")
async def list_extra_specs(context: NovaContext, flavor_id: str) -> server_views.FlavorSpecs:
    """Show a flavor's extra specs: always empty."""
    _flavor(context, flavor_id)
    return {"extra_specs": {}}


@operation("flavors_show_extra_spec", "GET", "flavors/<flavor_id>/os-extra_specs/<key>")
async def show_extra_spec(context: NovaContext, flavor_id: str, key: str) -> dict[str, str]:
    """Show one of a flavor's extra specs: always 404, because flavors have none."""
    _flavor(context, flavor_id)
    raise NotFound


def _flavor(context: NovaContext, flavor_id: str) -> Flavor:
    found = context.services.servers.flavors.get(flavor_id)
    if found is None:
        raise FlavorNotFound(flavor_id)
    return found


@operation("flavors_list_zones", "GET", "os-availability-zone")
async def list_zones(context: NovaContext) -> Zones:
    """List the only availability zone."""
    zone: ZoneShown = {
        "zoneName": context.services.servers.zone,
        "zoneState": {"available": True},
        "hosts": None,
    }
    return {"availabilityZoneInfo": [zone]}


OPERATIONS = (
    list_flavors,
    list_flavors_in_detail,
    show_flavor,
    list_extra_specs,
    show_extra_spec,
    list_zones,
)
