// A server with volumes by gophercloud: the tour of docs/clients.md.  Arguments: URL, password.
package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/gophercloud/gophercloud"
	"github.com/gophercloud/gophercloud/openstack"
	"github.com/gophercloud/gophercloud/openstack/blockstorage/v1/volumes"
	"github.com/gophercloud/gophercloud/openstack/compute/v2/extensions/bootfromvolume"
	"github.com/gophercloud/gophercloud/openstack/compute/v2/extensions/keypairs"
	"github.com/gophercloud/gophercloud/openstack/compute/v2/extensions/startstop"
	"github.com/gophercloud/gophercloud/openstack/compute/v2/extensions/volumeattach"
	"github.com/gophercloud/gophercloud/openstack/compute/v2/flavors"
	"github.com/gophercloud/gophercloud/openstack/compute/v2/images"
	"github.com/gophercloud/gophercloud/openstack/compute/v2/servers"
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

func until(what string, holds func() bool) {
	seconds, err := strconv.Atoi(os.Getenv("LIMIT"))
	check(err)
	limit := time.Duration(seconds) * time.Second
	for end := time.Now().Add(limit); !holds(); time.Sleep(500 * time.Millisecond) {
		expect(what, time.Now().Before(end))
	}
}

func main() {
	provider, err := openstack.AuthenticatedClient(gophercloud.AuthOptions{
		IdentityEndpoint: os.Args[1] + "/identity/v3",
		Username:         "ann",
		Password:         os.Args[2],
		DomainID:         "default",
		Scope:            &gophercloud.AuthScope{ProjectName: "demo", DomainID: "default"},
	})
	check(err)
	compute, err := openstack.NewComputeV2(provider, gophercloud.EndpointOpts{})
	check(err)
	storage, err := openstack.NewBlockStorageV1(provider, gophercloud.EndpointOpts{})
	check(err)

	pair, err := keypairs.Create(compute, keypairs.CreateOpts{Name: "go"}).Extract()
	check(err)
	expect("a private key", strings.Contains(pair.PrivateKey, "PRIVATE KEY"))
	flavor, image := "", ""
	pages, err := flavors.ListDetail(compute, flavors.ListOpts{}).AllPages()
	check(err)
	sizes, err := flavors.ExtractFlavors(pages)
	check(err)
	for _, each := range sizes {
		if each.Name == "tiny" && each.RAM == 256 {
			flavor = each.ID
		}
	}
	pages, err = images.ListDetail(compute, images.ListOpts{Name: "linux"}).AllPages()
	check(err)
	systems, err := images.ExtractImages(pages)
	check(err)
	for _, each := range systems {
		image = each.ID
	}

	server, err := bootfromvolume.Create(compute, bootfromvolume.CreateOptsExt{
		CreateOptsBuilder: keypairs.CreateOptsExt{
			CreateOptsBuilder: servers.CreateOpts{
				Name: "go", FlavorRef: flavor, Metadata: map[string]string{"use": "web"},
			},
			KeyName: "go",
		},
		BlockDevice: []bootfromvolume.BlockDevice{{
			SourceType: bootfromvolume.SourceImage, UUID: image, VolumeSize: 1,
			DestinationType: bootfromvolume.DestinationVolume, DeleteOnTermination: true,
		}},
	}).Extract()
	check(err)
	check(servers.WaitForStatus(compute, server.ID, "ACTIVE", 120))
	pages, err = servers.List(compute, servers.ListOpts{Name: "go"}).AllPages()
	check(err)
	listed, err := servers.ExtractServers(pages)
	check(err)
	expect("the server is listed", len(listed) == 1 && listed[0].ID == server.ID)
	expect("its key", listed[0].KeyName == "go")
	expect("its volume", len(listed[0].AttachedVolumes) == 1)

	volume, err := volumes.Create(storage, volumes.CreateOpts{Size: 1, Name: "go"}).Extract()
	check(err)
	check(volumes.WaitForStatus(storage, volume.ID, "available", 120))
	attached, err := volumeattach.Create(
		compute, server.ID, volumeattach.CreateOpts{VolumeID: volume.ID}).Extract()
	check(err)
	check(volumes.WaitForStatus(storage, volume.ID, "in-use", 120))
	// A guest that has not come up does not release a disk.
	until("the guest is up", func() bool {
		console, err := servers.ShowConsoleOutput(
			compute, server.ID, servers.ShowConsoleOutputOpts{Length: 50}).Extract()
		check(err)
		return strings.Contains(console, "guest: ready")
	})
	check(volumeattach.Delete(compute, server.ID, attached.ID).ExtractErr())
	check(volumes.WaitForStatus(storage, volume.ID, "available", 120))

	check(startstop.Stop(compute, server.ID).ExtractErr())
	check(servers.WaitForStatus(compute, server.ID, "SHUTOFF", 120))
	check(startstop.Start(compute, server.ID).ExtractErr())
	check(servers.WaitForStatus(compute, server.ID, "ACTIVE", 120))
	_, err = servers.Update(compute, server.ID, servers.UpdateOpts{Name: "renamed"}).Extract()
	check(err)
	_, err = servers.UpdateMetadata(
		compute, server.ID, servers.MetadataOpts{"colour": "red"}).Extract()
	check(err)
	shown, err := servers.Get(compute, server.ID).Extract()
	check(err)
	expect("renamed", shown.Name == "renamed")
	expect("metadata", fmt.Sprint(shown.Metadata) == "map[colour:red use:web]")

	check(servers.Delete(compute, server.ID).ExtractErr())
	until("the server is gone", func() bool {
		_, err := servers.Get(compute, server.ID).Extract()
		_, missing := err.(gophercloud.ErrDefault404)
		return missing
	})
	check(keypairs.Delete(compute, "go").ExtractErr())
	check(volumes.Delete(storage, volume.ID).ExtractErr())
}
