# A server with volumes by Fog: the tour of docs/clients.md.  Arguments: URL, password.
require "fog/openstack"

url, password = ARGV
compute = Fog::OpenStack::Compute.new(
  openstack_auth_url: "#{url}/identity/v3",
  openstack_username: "ann",
  openstack_api_key: password,
  openstack_project_name: "demo",
  openstack_domain_id: "default",
)

def expect(what, holds)
  raise what unless holds
end

pair = compute.key_pairs.create(name: "fog")
expect("a private key", pair.private_key.include?("PRIVATE KEY"))
expect("the key pair is listed", compute.key_pairs.map(&:name).include?("fog"))
expect("the key pair is shown", compute.key_pairs.get("fog").fingerprint == pair.fingerprint)

flavor = compute.flavors.find { |each| each.name == "tiny" }
expect("the flavor", compute.flavors.get(flavor.id).ram == 256)
image = compute.images.find { |each| each.name == "linux" }
server = compute.servers.create(
  name: "fog",
  flavor_ref: flavor.id,
  key_name: "fog",
  metadata: { "use" => "web" },
  block_device_mapping_v2: [
    {
      source_type: "image",
      uuid: image.id,
      destination_type: "volume",
      volume_size: 1,
      boot_index: 0,
      delete_on_termination: true,
    },
  ],
)
server.wait_for(120, 0.5) { ready? }
expect("the server is listed", compute.servers.map(&:id).include?(server.id))
expect("its key", server.key_name == "fog")
root = server.volumes.map(&:id)
expect("its volume", root.length == 1)

volume = compute.volumes.create(name: "fog", description: "data", size: 1)
volume.wait_for(120, 0.5) { ready? }
server.attach_volume(volume.id, nil)
volume.wait_for(120, 0.5) { status == "in-use" }
expect("attached", server.volume_attachments.map { |each| each["volumeId"] }.sort == [*root, volume.id].sort)
# A guest that has not come up does not release a disk.
Fog.wait_for(120, 0.5) { server.console(50).body["output"].include?("guest: ready") }
server.detach_volume(volume.id)
volume.wait_for(120, 0.5) { ready? }

server.stop
server.wait_for(120, 0.5) { state == "SHUTOFF" }
server.start
server.wait_for(120, 0.5) { ready? }
server.reboot("HARD")
server.wait_for(120, 0.5) { ready? }
compute.update_server(server.id, name: "renamed")
expect("renamed", server.reload.name == "renamed")
server.metadata.update("colour" => "red")
expect("metadata", compute.servers.get(server.id).metadata.to_hash == { "use" => "web", "colour" => "red" })

server.destroy
Fog.wait_for(120, 0.5) { compute.servers.get(server.id).nil? }
pair.destroy
expect("no key pair", compute.key_pairs.get("fog").nil?)
volume.destroy
