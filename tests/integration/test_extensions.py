"""The list of extensions, as clients use the list."""

from __future__ import annotations

import json

from pytest_twisted import ensureDeferred

from bootvol.api.nova.dialect import NOVA, description
from tests.daemons import Running
from tests.integration.test_faults import NOT_FOUND, fault

VOLUMES = {
    "alias": "os-volumes",
    "name": "Volumes",
    "namespace": "http://docs.openstack.org/ext/volumes/api/v1.1",
    "description": "Volumes support",
    "updated": "2011-03-25T00:00:00+00:00",
    "links": [],
}


#: Extensions, by the parts of paths outside Nova's core.
PARTS = {
    "hp-bootable-volumes": "hp-bootable-volumes",
    "os-availability-zone": "os-availability-zone",
    "os-extra_specs": "os-flavor-extra-specs",
    "os-keypairs": "os-keypairs",
    "os-quota-sets": "os-quota-sets",
    "os-snapshots": "os-snapshots",
    "os-volume-types": "os-volume-types",
    "os-volumes": "os-volumes",
    "os-volumes_boot": "os-volumes",
    "os-volume_attachments": "os-volumes",
}
#: Extensions without a path of their own, by names in bodies.
IN_BODIES = {
    "os-block-device-mapping-v2-boot": "block_device_mapping_v2",
    "os-console-output": "os-getConsoleOutput",
    "os-server-start-stop": "os-start",
    "os-used-limits": "totalVolumesUsed",
}


@ensureDeferred
async def test_extensions(running: Running) -> None:
    listed = (await running.call("GET", "extensions")).json["extensions"]
    aliases = [each["alias"] for each in listed]
    assert aliases == sorted({*PARTS.values(), *IN_BODIES})
    assert VOLUMES in listed
    for each in listed:
        assert set(each) == set(VOLUMES)
        shown = await running.call("GET", f"extensions/{each['alias']}")
        assert (shown.status, shown.json) == (200, {"extension": each})


def test_what_is_served_beyond_the_core_is_an_extension() -> None:
    found = {
        part
        for operation in NOVA.operations
        for path in operation.paths
        for part in path.split("/")
        if part.startswith(("os-", "hp-"))
    }
    assert found == set(PARTS)
    described = json.dumps(description())
    assert [name for name in IN_BODIES.values() if name not in described] == []


@ensureDeferred
async def test_what_is_no_extension(running: Running) -> None:
    for alias in ("os-networks", "OS-VOLUMES", "%00"):
        assert fault(await running.call("GET", f"extensions/{alias}")) == NOT_FOUND
