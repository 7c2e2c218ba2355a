// Volumes by gophercloud's Block Storage v3, on which Terraform's provider is built.
// Arguments: the URL of the identity service, password, id of the project.
package main

import (
	"fmt"
	"os"

	"github.com/gophercloud/gophercloud"
	"github.com/gophercloud/gophercloud/openstack"
	"github.com/gophercloud/gophercloud/openstack/blockstorage/extensions/quotasets"
	"github.com/gophercloud/gophercloud/openstack/blockstorage/extensions/volumeactions"
	"github.com/gophercloud/gophercloud/openstack/blockstorage/extensions/volumetransfers"
	"github.com/gophercloud/gophercloud/openstack/blockstorage/v3/attachments"
	"github.com/gophercloud/gophercloud/openstack/blockstorage/v3/snapshots"
	"github.com/gophercloud/gophercloud/openstack/blockstorage/v3/volumes"
	"github.com/gophercloud/gophercloud/openstack/blockstorage/v3/volumetypes"
	"github.com/gophercloud/gophercloud/openstack/imageservice/v2/images"
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func expect(what string, holds bool) {
	if !holds {
		panic(what)
	}
}

func client(project string) (*gophercloud.ServiceClient, *gophercloud.ServiceClient) {
	provider, err := openstack.AuthenticatedClient(gophercloud.AuthOptions{
		IdentityEndpoint: os.Args[1],
		Username:         "ann",
		Password:         os.Args[2],
		DomainID:         "default",
		Scope:            &gophercloud.AuthScope{ProjectName: project, DomainID: "default"},
	})
	check(err)
	storage, err := openstack.NewBlockStorageV3(provider, gophercloud.EndpointOpts{})
	check(err)
	pictures, err := openstack.NewImageServiceV2(provider, gophercloud.EndpointOpts{})
	check(err)
	return storage, pictures
}

func main() {
	storage, pictures := client("demo")
	waited := func(volume *volumes.Volume, err error) *volumes.Volume {
		check(err)
		check(volumes.WaitForStatus(storage, volume.ID, "available", 120))
		volume, err = volumes.Get(storage, volume.ID).Extract()
		check(err)
		return volume
	}

	pages, err := images.List(pictures, images.ListOpts{Name: "disk"}).AllPages()
	check(err)
	found, err := images.ExtractImages(pages)
	check(err)
	expect("one image", len(found) == 1)
	root := waited(volumes.Create(storage, volumes.CreateOpts{
		Size: 1, Name: "root", Description: "d", ImageID: found[0].ID, AvailabilityZone: "nova",
		Metadata: map[string]string{"use": "web"},
	}).Extract())
	expect("bootable", root.Bootable == "true")
	expect("its metadata", fmt.Sprint(root.Metadata) == "map[use:web]")
	expect("its image", root.VolumeImageMetadata["image_id"] == found[0].ID)
	expect("its type and times", root.VolumeType == "__DEFAULT__" && !root.CreatedAt.IsZero())
	name := "renamed"
	changed, err := volumes.Update(storage, root.ID, volumes.UpdateOpts{
		Name: &name, Metadata: map[string]string{"use": "mail"}}).Extract()
	check(err)
	expect("the change", changed.Name == name && changed.Metadata["use"] == "mail")
	check(volumeactions.ExtendSize(storage, root.ID, volumeactions.ExtendSizeOpts{NewSize: 2}).ExtractErr())
	expect("growth", waited(root, nil).Size == 2)
	check(volumeactions.SetBootable(storage, root.ID, volumeactions.BootableOpts{Bootable: false}).ExtractErr())
	check(volumeactions.SetImageMetadata(storage, root.ID, volumeactions.ImageMetadataOpts{
		Metadata: map[string]string{"os_distro": "debian"}}).ExtractErr())
	root = waited(root, nil)
	expect("the actions", root.Bootable == "false" && root.VolumeImageMetadata["os_distro"] == "debian")

	snapshot, err := snapshots.Create(storage, snapshots.CreateOpts{
		VolumeID: root.ID, Name: "before", Metadata: map[string]string{"a": "b"}}).Extract()
	check(err)
	check(snapshots.WaitForStatus(storage, snapshot.ID, "available", 120))
	pages, err = snapshots.List(storage, snapshots.ListOpts{VolumeID: root.ID}).AllPages()
	check(err)
	listed, err := snapshots.ExtractSnapshots(pages)
	check(err)
	expect("the snapshot", len(listed) == 1 && listed[0].ID == snapshot.ID && listed[0].Metadata["a"] == "b")
	copied := waited(volumes.Create(storage, volumes.CreateOpts{Name: "copy", SnapshotID: snapshot.ID}).Extract())
	expect("a copy", copied.SnapshotID == snapshot.ID && copied.Size == 2)
	clone := waited(volumes.Create(storage, volumes.CreateOpts{Size: 3, Name: "clone", SourceVolID: root.ID}).Extract())
	expect("a clone", clone.SourceVolID == root.ID && clone.Size == 3)
	// Pages of two, by links.
	pages, err = volumes.List(storage, volumes.ListOpts{Limit: 2, Sort: "name:asc"}).AllPages()
	check(err)
	all, err := volumes.ExtractVolumes(pages)
	check(err)
	expect("the pages", len(all) == 3 && all[0].ID == clone.ID && all[2].ID == root.ID)
	pages, err = volumes.List(storage, volumes.ListOpts{Metadata: map[string]string{"use": "mail"}}).AllPages()
	check(err)
	all, err = volumes.ExtractVolumes(pages)
	check(err)
	expect("the filter", len(all) == 1 && all[0].ID == root.ID)

	isPublic := true
	kind, err := volumetypes.Create(storage, volumetypes.CreateOpts{
		Name: "fast", IsPublic: &isPublic, ExtraSpecs: map[string]string{"k": "v"}}).Extract()
	check(err)
	kind, err = volumetypes.Get(storage, kind.ID).Extract()
	check(err)
	expect("the type", kind.Name == "fast" && kind.ExtraSpecs["k"] == "v")
	check(volumetypes.Delete(storage, kind.ID).ExtractErr())

	// Terraform attaches volumes to hosts by the older actions.
	check(volumeactions.Reserve(storage, clone.ID).ExtractErr())
	way, err := volumeactions.InitializeConnection(storage, clone.ID, volumeactions.InitializeConnectionOpts{
		Host: "web", IP: "10.0.0.1"}).Extract()
	check(err)
	expect("the way to the volume", way["driver_volume_type"] == "local")
	check(volumeactions.Attach(storage, clone.ID, volumeactions.AttachOpts{
		HostName: "web", MountPoint: "/dev/vdb", Mode: "rw"}).ExtractErr())
	clone, err = volumes.Get(storage, clone.ID).Extract()
	check(err)
	expect("in use", clone.Status == "in-use" && len(clone.Attachments) == 1 && clone.Attachments[0].HostName == "web")
	_, refused := volumes.Delete(storage, clone.ID, volumes.DeleteOpts{}).ExtractErr().(gophercloud.ErrDefault400)
	expect("a volume in use stays", refused)
	check(volumeactions.BeginDetaching(storage, clone.ID).ExtractErr())
	check(volumeactions.TerminateConnection(storage, clone.ID, volumeactions.TerminateConnectionOpts{Host: "web"}).ExtractErr())
	check(volumeactions.Detach(storage, clone.ID, volumeactions.DetachOpts{
		AttachmentID: clone.Attachments[0].AttachmentID}).ExtractErr())
	expect("free", len(waited(clone, nil).Attachments) == 0)
	storage.Microversion = "3.54"
	held, err := attachments.Create(storage, attachments.CreateOpts{
		VolumeUUID: clone.ID, InstanceUUID: "aaaaaaaa-0000-4000-8000-000000000001", Mode: "ro"}).Extract()
	check(err)
	expect("a hold", held.Status == "reserved" && held.VolumeID == clone.ID)
	pages, err = attachments.List(storage, attachments.ListOpts{VolumeID: clone.ID}).AllPages()
	check(err)
	holds, err := attachments.ExtractAttachments(pages)
	check(err)
	expect("the hold is listed", len(holds) == 1 && holds[0].ID == held.ID)
	check(attachments.Delete(storage, held.ID).ExtractErr())
	storage.Microversion = ""

	offer, err := volumetransfers.Create(storage, volumetransfers.CreateOpts{VolumeID: copied.ID, Name: "gift"}).Extract()
	check(err)
	taker, _ := client("other")
	_, err = volumetransfers.Accept(taker, offer.ID, volumetransfers.AcceptOpts{AuthKey: offer.AuthKey}).Extract()
	check(err)
	check(volumes.Delete(taker, copied.ID, volumes.DeleteOpts{}).ExtractErr())
	usage, err := quotasets.GetUsage(storage, os.Args[3]).Extract()
	check(err)
	expect("the usage", usage.Volumes.InUse == 2 && usage.Gigabytes.InUse == 7)
	check(volumes.Delete(storage, root.ID, volumes.DeleteOpts{Cascade: true}).ExtractErr())
	check(volumeactions.ForceDelete(storage, clone.ID).ExtractErr())
}
