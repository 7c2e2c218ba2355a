"""The list of extensions, as clients look things up in it."""

from __future__ import annotations

from pytest_twisted import ensureDeferred

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


@ensureDeferred
async def test_extensions(running: Running) -> None:
    listed = (await running.call("GET", "extensions")).json["extensions"]
    aliases = [each["alias"] for each in listed]
    assert aliases == [
        "hp-bootable-volumes",
        "os-quota-sets",
        "os-snapshots",
        "os-used-limits",
        "os-volume-types",
        "os-volumes",
    ]
    assert VOLUMES in listed
    for each in listed:
        assert set(each) == set(VOLUMES)
        shown = await running.call("GET", f"extensions/{each['alias']}")
        assert (shown.status, shown.json) == (200, {"extension": each})
    # What is listed is there.
    for alias in set(aliases) - {"os-used-limits", "os-quota-sets"}:
        assert (await running.call("GET", alias)).status == 200


@ensureDeferred
async def test_what_is_no_extension(running: Running) -> None:
    for alias in ("os-keypairs", "OS-VOLUMES", "%00"):
        assert fault(await running.call("GET", f"extensions/{alias}")) == NOT_FOUND
