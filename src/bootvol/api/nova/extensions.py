"""Operations of extensions (specification, section 5.2): the list of extensions of Nova v1.1.

docs/decisions/0005-parent-api.md decides the points that the specification leaves open.
"""

from __future__ import annotations

from typing import Final

from typing_extensions import TypedDict

from bootvol.api.nova.context import NovaContext
from bootvol.api.nova.views import Nothing
from bootvol.api.operations import operation
from bootvol.errors import NotFound


class ExtensionShown(TypedDict):
    """An extension."""

    alias: str
    name: str
    namespace: str
    description: str
    updated: str
    links: Nothing


class Extensions(TypedDict):
    extensions: list[ExtensionShown]


class OneExtension(TypedDict):
    extension: ExtensionShown


def _described(
    alias: str, name: str, namespace: str, description: str, updated: str
) -> ExtensionShown:
    return {
        "alias": alias,
        "name": name,
        "namespace": namespace,
        "description": description,
        "updated": f"{updated}T00:00:00+00:00",
        "links": [],
    }


#: The extensions by alias, in alphabetical order.
EXTENSIONS: Final[dict[str, ExtensionShown]] = {
    each["alias"]: each
    for each in (
        _described(
            "hp-bootable-volumes",
            "BootableVolumes",
            "http://docs.hpcloud.com/ext/bootable_volumes/api/v1.1",
            "Volumes that are created from an image, and can be booted from",
            "2012-11-13",
        ),
        _described(
            "os-availability-zone",
            "AvailabilityZone",
            "http://docs.openstack.org/compute/ext/availabilityzone/api/v1.1",
            "1. Add availability_zone to the Create Server v1.1 API. "
            "2. Add availability zones describing.",
            "2012-12-21",
        ),
        _described(
            "os-block-device-mapping-v2-boot",
            "BlockDeviceMappingV2Boot",
            "http://docs.openstack.org/compute/ext/block_device_mapping_v2_boot/api/v2",
            "Allow boot with the new BDM data format.",
            "2013-07-08",
        ),
        _described(
            "os-console-output",
            "ConsoleOutput",
            "http://docs.openstack.org/compute/ext/os-console-output/api/v2",
            "Console log output support, with tailing ability.",
            "2011-12-08",
        ),
        _described(
            "os-flavor-extra-specs",
            "FlavorExtraSpecs",
            "http://docs.openstack.org/ext/flavor_extra_specs/api/v1.1",
            "Instance type (flavor) extra specs",
            "2011-06-23",
        ),
        _described(
            "os-keypairs",
            "Keypairs",
            "http://docs.openstack.org/ext/keypairs/api/v1.1",
            "Keypair Support",
            "2011-08-08",
        ),
        _described(
            "os-quota-sets",
            "Quotas",
            "http://docs.openstack.org/ext/quotas-sets/api/v1.1",
            "Quotas management support",
            "2011-08-08",
        ),
        _described(
            "os-server-start-stop",
            "ServerStartStop",
            "http://docs.openstack.org/compute/ext/servers/api/v1.1",
            "Start/Stop instance compute API support.",
            "2012-01-23",
        ),
        _described(
            "os-snapshots",
            "Snapshots",
            "http://docs.openstack.org/compute/ext/volumes/api/v1.1",
            "Snapshots of volumes",
            "2011-03-25",
        ),
        _described(
            "os-used-limits",
            "UsedLimits",
            "http://docs.openstack.org/compute/ext/used_limits/api/v1.1",
            "Provide data on limited resources that are being used.",
            "2012-07-13",
        ),
        _described(
            "os-volume-types",
            "VolumeTypes",
            "http://docs.openstack.org/ext/volume_types/api/v1.1",
            "Volume types support",
            "2011-08-24",
        ),
        _described(
            "os-volumes",
            "Volumes",
            "http://docs.openstack.org/ext/volumes/api/v1.1",
            "Volumes support",
            "2011-03-25",
        ),
    )
}


@operation("extensions_list_extensions", "GET", "extensions")
async def list_extensions(context: NovaContext) -> Extensions:
    """List the extensions, by alias."""
    return {"extensions": list(EXTENSIONS.values())}


@operation("extensions_show_extension", "GET", "extensions/<alias>")
async def show_extension(context: NovaContext, alias: str) -> OneExtension:
    """Show an extension."""
    if alias not in EXTENSIONS:
        raise NotFound
    return {"extension": EXTENSIONS[alias]}


OPERATIONS = (list_extensions, show_extension)
