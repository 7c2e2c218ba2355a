"""Operations about the service itself: availability zones and extensions."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict

from bootvol.api.cinder.context import CinderContext
from bootvol.api.operations import operation
from bootvol.errors import NotFound


class ZoneState(TypedDict):
    """The state of a zone."""

    available: Literal[True]


class ZoneShown(TypedDict):
    """An availability zone."""

    zoneName: str
    zoneState: ZoneState


class Zones(TypedDict):
    availabilityZoneInfo: list[ZoneShown]


class ExtensionShown(TypedDict):
    """A part of the API."""

    name: str
    alias: str
    description: str
    updated: str
    links: list[None]


class Extensions(TypedDict):
    extensions: list[ExtensionShown]


class OneExtension(TypedDict):
    extension: ExtensionShown


def _extension(alias: str, name: str, description: str) -> ExtensionShown:
    updated = "2012-05-12T00:00:00+00:00"
    shown: ExtensionShown = {
        "name": name,
        "alias": alias,
        "description": description,
        "updated": updated,
        "links": [],
    }
    return shown


_EXTENSIONS = [
    _extension("os-availability-zone", "AvailabilityZones", "Describe availability zones."),
    _extension(
        "os-extended-snapshot-attributes",
        "ExtendedSnapshotAttributes",
        "Show the project and the progress of snapshots.",
    ),
    _extension("os-hosts", "Hosts", "Show the hosts of the service."),
    _extension("os-quota-sets", "Quotas", "Show and change quotas."),
    _extension("os-services", "Services", "Show the services."),
    _extension("os-snapshot-manage", "SnapshotManage", "Take snapshots on backends over."),
    _extension("os-snapshot-unmanage", "SnapshotUnmanage", "Give snapshots up."),
    _extension("os-types-extra-specs", "TypesExtraSpecs", "Show and change extra specs."),
    _extension("os-types-manage", "TypesManage", "Create, change and delete volume types."),
    _extension("os-used-limits", "UsedLimits", "Show the usage of limits."),
    _extension("os-vol-host-attr", "VolumeHostAttribute", "Show where volumes are stored."),
    _extension("os-vol-image-meta", "VolumeImageMetadata", "Show the images of volumes."),
    _extension("os-vol-tenant-attr", "VolumeTenantAttribute", "Show the projects of volumes."),
    _extension("os-volume-manage", "VolumeManage", "Take disks on backends over as volumes."),
    _extension("os-volume-unmanage", "VolumeUnmanage", "Give volumes up."),
]


@operation("zones_list_zones", "GET", "os-availability-zone")
async def list_zones(context: CinderContext) -> Zones:
    """List the availability zones."""
    zone = context.services.volumes.zone
    return {"availabilityZoneInfo": [{"zoneName": zone, "zoneState": {"available": True}}]}


@operation("extensions_list_extensions", "GET", "extensions")
async def list_extensions(context: CinderContext) -> Extensions:
    """List the parts of the API beyond its core."""
    return {"extensions": _EXTENSIONS}


@operation("extensions_show_extension", "GET", "extensions/<alias>")
async def show_extension(context: CinderContext, alias: str) -> OneExtension:
    """Show a part of the API."""
    for each in _EXTENSIONS:
        if each["alias"] == alias:
            return {"extension": each}
    raise NotFound


OPERATIONS = (list_zones, list_extensions, show_extension)
