"""A server with volumes by Apache Libcloud: the tour of docs/clients.md.

Arguments: the daemon's URL, the password, the version of the identity API (2 or 3).
"""

import os
import sys
import time
from collections.abc import Callable

from libcloud.compute.providers import get_driver
from libcloud.compute.types import NodeState, Provider

url, password, version = sys.argv[1:]
login = {
    "2": {"ex_force_auth_url": url, "ex_force_auth_version": "2.0_password"},
    "3": {"ex_force_auth_url": f"{url}/identity", "ex_force_auth_version": "3.x_password"},
}[version]
driver = get_driver(Provider.OPENSTACK)(
    "ann",
    password,
    ex_tenant_name="demo",
    ex_force_service_name="Compute",
    ex_force_service_region="nova",
    **login,
)


def until(what: str, holds: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    end = time.time() + float(os.environ["LIMIT"])
    while not holds():
        assert time.time() < end, what
        time.sleep(0.5)


def state() -> object:
    """Return the state of the server."""
    return driver.ex_get_node_details(node.id).state


def status() -> object:
    """Return the status of the volume."""
    return driver.ex_get_volume(volume.id).extra["state"]


name = f"libcloud-{version}"
pair = driver.create_key_pair(name)
assert "PRIVATE KEY" in pair.private_key
assert driver.get_key_pair(name).fingerprint == pair.fingerprint
assert name in [each.name for each in driver.list_key_pairs()]

(size,) = driver.list_sizes()
assert (driver.ex_get_size(size.id).ram, size.vcpus) == (256, 1)
(image,) = driver.list_images()
assert driver.get_image(image.id).name == "linux"
disk = {
    "source_type": "image",
    "uuid": image.id,
    "destination_type": "volume",
    "volume_size": 1,
    "boot_index": 0,
    "delete_on_termination": True,
}
node = driver.create_node(
    name=name,
    size=size,
    # Libcloud 1.1 requires an image, even for a server that boots from a volume.
    image=image,
    ex_keyname=name,
    ex_metadata={"use": "web"},
    ex_blockdevicemappings=[disk],
)
until("the server runs", lambda: state() == NodeState.RUNNING)
assert node.id in [each.id for each in driver.list_nodes()]
shown = driver.ex_get_node_details(node.id).extra
assert (shown["key_name"], shown["metadata"]) == (name, {"use": "web"})
(root,) = [each["id"] for each in shown["volumes_attached"]]

volume = driver.create_volume(1, "data")
until("the volume is made", lambda: status() == "available")
assert {str(each.id) for each in driver.list_volumes()} >= {str(root), str(volume.id)}
assert driver.attach_volume(node, volume)
until("the volume is attached", lambda: status() == "in-use")
volume = driver.ex_get_volume(volume.id)
# A node's id is text, a server's id below /v1.1 a number: Libcloud cannot look up the server by the
# node.
assert [str(each["serverId"]) for each in volume.extra["attachments"]] == [node.id]
# A guest that has not come up does not release a disk.
until("the guest is up", lambda: "guest: ready" in driver.ex_get_console_output(node)["output"])
assert driver.detach_volume(volume, node if version == "3" else None)
until("the volume is detached", lambda: status() == "available")
snapshot = driver.create_volume_snapshot(volume, "copy")
assert [each.id for each in driver.list_volume_snapshots(volume)] == [snapshot.id]


def snapshots() -> list[object]:
    """Return the statuses of the volume's snapshots."""
    return [each.extra["status"] for each in driver.list_volume_snapshots(volume)]


until("the snapshot is made", lambda: snapshots() == ["available"])
driver.destroy_volume_snapshot(snapshot)
until("the snapshot is deleted", lambda: not snapshots())

if version == "3":
    assert driver.stop_node(node)
    until("the server is off", lambda: state() == NodeState.STOPPED)
    assert driver.start_node(node)
    until("the server runs again", lambda: state() == NodeState.RUNNING)
assert driver.ex_hard_reboot_node(node)
until("the server has rebooted", lambda: state() == NodeState.RUNNING)
assert driver.ex_set_server_name(node, "renamed").name == "renamed"
assert driver.ex_set_metadata(node, {"colour": "red"}) == {"colour": "red"}
assert driver.ex_get_metadata(node) == {"colour": "red"}

assert driver.destroy_node(node)
until("the server is gone", lambda: node.id not in [each.id for each in driver.list_nodes()])
assert driver.delete_key_pair(pair)
assert driver.destroy_volume(volume)
