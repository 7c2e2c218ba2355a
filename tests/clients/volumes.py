"""Volumes by the cloud layer of openstacksdk.  Arguments: the URL of the
identity service, password, file of an image."""

import os
import sys
from typing import Any

import openstack

url, password, file = sys.argv[1:]
LIMIT = int(os.environ["LIMIT"])
cloud: Any = openstack.connect(
    auth_url=url,
    username="ann",
    password=password,
    project_name="demo",
    user_domain_id="default",
    project_domain_id="default",
)


def told(*arguments: Any, **more: Any) -> str:
    """Return the refusal of a new volume."""
    try:
        cloud.create_volume(*arguments, **more)
    except openstack.exceptions.SDKException as error:
        return str(error)
    raise AssertionError("the volume is created")


image = cloud.create_image("laptop", filename=file, disk_format="raw", wait=True, timeout=LIMIT)
assert (image.status, image.visibility) == ("active", "shared"), image
with open(file, "rb") as content:
    assert cloud.get_image("laptop").size == len(content.read())

root = cloud.create_volume(
    1, image="laptop", bootable=True, wait=True, timeout=LIMIT, name="root", metadata={"use": "web"}
)
assert (root.status, root.size, root.name) == ("available", 1, "root"), root
found = cloud.get_volume("root")
assert (found.id, found.is_bootable, found.metadata) == (root.id, True, {"use": "web"}), found
assert found.volume_image_metadata["image_id"] == image.id, found
assert cloud.get_volume_id("root") == root.id
assert cloud.volume_exists("root")
assert [each.id for each in cloud.search_volumes(filters={"status": "available"})] == [root.id]
assert cloud.update_volume("root", name="renamed", description="d").name == "renamed"
cloud.set_volume_bootable("renamed", bootable=False)
assert not cloud.get_volume("renamed").is_bootable

snapshot = cloud.create_volume_snapshot(
    root.id, name="before", description="d", wait=True, timeout=LIMIT
)
assert (snapshot.status, snapshot.volume_id) == ("available", root.id), snapshot
assert cloud.get_volume_snapshot("before").id == snapshot.id
assert cloud.get_volume_snapshot_by_id(snapshot.id).name == "before"
assert [each.id for each in cloud.list_volume_snapshots()] == [snapshot.id]
assert [each.id for each in cloud.search_volume_snapshots("before")] == [snapshot.id]
copy = cloud.create_volume(1, snapshot_id=snapshot.id, wait=True, timeout=LIMIT, name="copy")
assert (copy.status, copy.snapshot_id) == ("available", snapshot.id), copy
clone = cloud.create_volume(
    1, source_volid=root.id, wait=True, timeout=LIMIT, name="clone", description="d"
)
assert (clone.status, clone.source_volume_id) == ("available", root.id), clone
made = cloud.create_image("of-copy", volume=copy.id, disk_format="raw")
for _ in openstack.utils.iterate_timeout(LIMIT, "the image is not made", wait=0.2):
    found = (cloud.get_image("of-copy").status, cloud.get_volume("copy").status)
    if found == ("active", "available"):
        break

default = cloud.get_volume_type("__DEFAULT__")
assert [each.id for each in cloud.list_volume_types()] == [default.id]
assert [each.id for each in cloud.search_volume_types("__DEFAULT__")] == [default.id]
private = cloud.block_storage.create_type(name="private", is_public=False)
cloud.add_volume_type_access("private", cloud.current_project_id)
assert [each["project_id"] for each in cloud.get_volume_type_access("private")] == [
    cloud.current_project_id
]
cloud.remove_volume_type_access("private", cloud.current_project_id)
cloud.block_storage.delete_type(private)
limits = cloud.get_volume_limits()
assert limits.absolute.total_volumes_used == 3, limits
cloud.set_volume_quotas(cloud.current_project_id, volumes=3)
assert cloud.get_volume_quotas(cloud.current_project_id).volumes == 3
assert "VolumeLimitExceeded" in told(1, name="many"), told(1, name="many")
cloud.delete_volume_quotas(cloud.current_project_id)
assert cloud.get_volume_quotas(cloud.current_project_id).volumes == 10
assert "nosuch" in told(1, image="nosuch", name="none")
assert [each.name for each in cloud.block_storage.availability_zones()] == ["nova"]
assert cloud.get_volume("nosuch") is None
assert cloud.delete_volume("nosuch") is False

assert cloud.delete_volume_snapshot("before", wait=True, timeout=LIMIT)
for name in ("copy", "clone", "renamed"):
    assert cloud.delete_volume(name, wait=True, timeout=LIMIT)
for name in ("laptop", "of-copy"):
    assert cloud.delete_image(name, wait=True, timeout=LIMIT)
assert (cloud.list_volumes(), cloud.list_volume_snapshots()) == ([], [])
