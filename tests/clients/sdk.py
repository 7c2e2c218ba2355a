"""A server with volumes by openstacksdk: the tour of docs/clients.md.  Arguments: URL, password."""

import os
import sys

import openstack

url, password = sys.argv[1:]
LIMIT = int(os.environ["LIMIT"])
cloud = openstack.connect(
    auth_url=f"{url}/identity/v3",
    username="ann",
    password=password,
    project_name="demo",
    user_domain_id="default",
    project_domain_id="default",
)
compute = cloud.compute

key = compute.create_keypair(name="sdk")
assert "PRIVATE KEY" in key.private_key
assert "sdk" in [each.name for each in compute.keypairs()]
assert compute.get_keypair("sdk").public_key.split() == key.public_key.split()

flavor = compute.find_flavor("tiny", ignore_missing=False)
assert compute.get_flavor(flavor.id).ram == 256
image = cloud.image.find_image("linux", ignore_missing=False)
server = compute.create_server(
    name="sdk",
    flavor_id=flavor.id,
    key_name="sdk",
    metadata={"use": "web"},
    block_device_mapping=[
        {
            "source_type": "image",
            "uuid": image.id,
            "destination_type": "volume",
            "volume_size": 1,
            "boot_index": 0,
            "delete_on_termination": True,
        }
    ],
)
server = compute.wait_for_server(server, interval=0.5, wait=LIMIT)
assert (server.status, server.vm_state, server.key_name) == ("ACTIVE", "active", "sdk")
assert [each.id for each in compute.servers(name="sdk")] == [server.id]
assert compute.find_server("sdk", ignore_missing=False).id == server.id

# openstacksdk uses Cinder for volumes. Plain requests reach the compute service's own volumes.
reply = compute.post("/os-volumes", json={"volume": {"size": 1, "display_name": "sdk"}})
volume = reply.json()["volume"]["id"]


def until(status: str) -> None:
    """Wait until the volume has a status."""
    for _ in openstack.utils.iterate_timeout(LIMIT, f"the volume is not {status}", wait=0.5):
        if compute.get(f"/os-volumes/{volume}").json()["volume"]["status"] == status:
            return


until("available")
attached = compute.create_volume_attachment(server, volume_id=volume)
until("in-use")
places = {each.volume_id: each.device for each in compute.volume_attachments(server)}
assert places[volume] == attached.device, places
assert len(places) == 2
assert {each["id"] for each in compute.get_server(server).attached_volumes} == set(places)
# A guest that has not come up does not release a disk.
for _ in openstack.utils.iterate_timeout(LIMIT, "the guest does not come up", wait=0.5):
    if "guest: ready" in compute.get_server_console_output(server, length=50)["output"]:
        break
compute.delete_volume_attachment(server, volume)
until("available")
assert volume not in {each.volume_id for each in compute.volume_attachments(server)}

compute.stop_server(server)
compute.wait_for_server(server, status="SHUTOFF", interval=0.5, wait=LIMIT)
compute.start_server(server)
compute.wait_for_server(server, interval=0.5, wait=LIMIT)
compute.reboot_server(server, "HARD")
compute.wait_for_server(server, interval=0.5, wait=LIMIT)
assert compute.update_server(server, name="renamed").name == "renamed"
compute.set_server_metadata(server, colour="red")
assert compute.fetch_server_metadata(server).metadata == {"use": "web", "colour": "red"}
compute.delete_server_metadata(server, ["use"])
assert compute.fetch_server_metadata(server).metadata == {"colour": "red"}
assert [each.name for each in compute.availability_zones()] == ["nova"]

compute.delete_server(server)
compute.wait_for_delete(server, interval=0.5, wait=LIMIT)
compute.delete_keypair("sdk")
assert compute.delete(f"/os-volumes/{volume}").status_code == 202
