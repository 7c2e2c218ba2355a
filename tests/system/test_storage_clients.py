"""More clients of the Block Storage API: python-cinderclient, libraries, and Ansible."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bootvol.testing.backends import noise
from tests.commands import CLIENTS, ROOT, Client, client
from tests.daemons import volumes_in
from tests.openstack.sites import KINDS, LONG, Site, site_of
from tests.people import PASSWORD
from tests.system.test_clients import SCRIPTS
from tests.waiting import LIMIT, LONG_LIMIT, block_until

ANSIBLE = ROOT / ".venv-ansible" / "bin"
SERVER = "aaaaaaaa-0000-4000-8000-000000000001"
#: The bytes of the image of these tests.
CONTENT = noise(1000)
NEWEST = ("--os-volume-api-version", "3.71")
#: Another backend.
OTHER = """
[[backends]]
name = "other"
plugin = "file"
directory = "others"
"""
#: A source for images of projects.
OWN = """
[[sources]]
name = "own"
plugin = "directory"
directory = "own"
writable = true
"""


@pytest.fixture(params=KINDS)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """A daemon with log-ins, two backends, and a source that takes images."""
    with site_of(request, request.param, tmp_path, OTHER, OWN) as site:
        yield site


@pytest.fixture(autouse=True)
def image(site: Site) -> str:
    """An image with the name ``disk``; the value is its id."""
    return site.bring("disk", CONTENT)


@pytest.fixture
def cinder(site: Site) -> Iterator[Client]:
    """The command ``cinder``."""
    with client("cinder", site.settings) as cinder:
        yield cinder


@pytest.fixture
def openstack(site: Site) -> Iterator[Client]:
    """The command ``openstack``."""
    with client("openstack", site.settings, NEWEST) as openstack:
        yield openstack


def told(shown: str, name: str) -> str:
    """Return a row of a table with names and values."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in shown.splitlines()]
    (found,) = [row[1] for row in rows if len(row) == 2 and row[0] == name]
    return found


def settled(cinder: Client, kind: str, name: str) -> str:
    """Wait until a volume or a snapshot is available; return the table."""
    return block_until(
        lambda: cinder(f"{kind} {name}"), lambda shown: told(shown, "status") == "available"
    )


def test_cinderclient_has_volumes(cinder: Client) -> None:
    cinder("create --name first --description d --metadata a=b --image disk 1")
    volume = told(settled(cinder, "show", "first"), "id")
    for option in ("--filters name~=fir", "--sort size:asc,id", "--all-tenants --metadata a=b"):
        assert volume in cinder(f"list {option}")
    assert "Volume in total: 1" in cinder("list --limit 2 --with-count")
    assert told(cinder("summary"), "total_size") == "1"
    cinder("metadata first set k=v")
    cinder("metadata first unset a")
    assert told(cinder("metadata-show first"), "k") == "v"
    cinder("metadata-update-all first z=1")
    cinder("image-metadata first set os_distro=debian")
    assert told(cinder("image-metadata-show first"), "os_distro") == "debian"
    cinder("image-metadata first unset os_distro")
    cinder("set-bootable first false")
    cinder("readonly-mode-update first true")
    cinder("readonly-mode-update first false")
    cinder("rename first root --description dd")
    cinder("extend root 2")
    shown = settled(cinder, "show", "root")
    assert (told(shown, "size"), told(shown, "bootable")) == ("2", "false")
    assert told(shown, "metadata").startswith(("readonly : False", "z : 1"))
    cinder.refused("extend root 1", "New size for extend must be greater than current size")
    cinder("delete root")
    block_until(lambda: volume not in cinder("list"))


def test_cinderclient_copies_volumes(cinder: Client, image: str) -> None:
    cinder("create --name root 1")
    volume = told(settled(cinder, "show", "root"), "id")
    cinder("snapshot-create root --name one --metadata a=b")
    snapshot = told(settled(cinder, "snapshot-show", "one"), "id")
    assert snapshot in cinder("snapshot-list --all-tenants")
    cinder("snapshot-metadata one set b=c")
    assert told(cinder("snapshot-metadata-show one"), "b") == "c"
    cinder("snapshot-metadata-update-all one d=e")
    cinder("snapshot-rename one before")
    for state in ("error", "available"):
        cinder(f"snapshot-reset-state --state {state} before")
        assert told(cinder("snapshot-show before"), "status") == state
        cinder(f"reset-state --state {state} root")
        assert told(cinder("show root"), "status") == state
    cinder("revert-to-snapshot before")
    settled(cinder, "show", "root")
    cinder(f"create --snapshot-id {snapshot} --name copy")
    assert told(settled(cinder, "show", "copy"), "snapshot_id") == snapshot
    cinder(f"create --source-volid {volume} --name clone")
    assert told(settled(cinder, "show", "clone"), "source_volid") == volume
    cinder(f"reimage clone {image}")
    settled(cinder, "show", "clone")
    made = told(cinder("upload-to-image copy of-copy --disk-format raw"), "image_id")
    settled(cinder, "show", "copy")
    cinder(f"create --image {made} --name again 1")
    settled(cinder, "show", "again")
    cinder.refused("upload-to-image copy x --disk-format qcow2", "disk format raw")
    offer = cinder("transfer-create copy --name gift")
    assert told(offer, "id") in cinder("transfer-list")
    cinder("transfer-show gift")
    cinder("transfer-delete gift")
    cinder("snapshot-delete before")
    block_until(lambda: snapshot not in cinder("snapshot-list"))
    cinder("force-delete clone")
    cinder("delete root copy again")
    block_until(lambda: volume not in cinder("list"))


def test_cinderclient_is_an_operators(cinder: Client, site: Site) -> None:
    demo, other = site.projects["demo"], site.projects["other"]
    cinder("type-create fast --description d --is-public false")
    cinder("type-key fast set a=b volume_backend_name=other")
    cinder("type-key fast unset a")
    assert "'volume_backend_name': 'other'" in cinder("extra-specs-list")
    kind = told(cinder("type-show fast"), "id")
    access = f"--volume-type fast --project-id {other}"
    cinder(f"type-access-add {access}")
    assert other in cinder("type-access-list --volume-type fast")
    cinder(f"type-access-remove {access}")
    cinder(f"type-update {kind} --name faster --is-public true")
    assert "__DEFAULT__" in cinder("type-default")
    cinder(f"default-type-set faster {demo}")
    assert demo in cinder("default-type-list")
    cinder("create --name typed 1")
    assert told(settled(cinder, "show", "typed"), "volume_type") == "faster"
    cinder(f"default-type-unset {demo}")
    cinder("retype typed __DEFAULT__ --migration-policy on-demand")
    block_until(lambda: told(cinder("show typed"), "volume_type") == "__DEFAULT__")
    place = told(settled(cinder, "show", "typed"), "os-vol-host-attr:host")
    host = place.partition("#")[0]
    qos = told(cinder("qos-create limits read_iops_sec=5 consumer=front-end"), "id")
    cinder(f"qos-key {qos} set write_iops_sec=6")
    cinder(f"qos-key {qos} unset read_iops_sec")
    assert "write_iops_sec" in cinder(f"qos-show {qos}")
    cinder(f"qos-associate {qos} {kind}")
    assert kind in cinder(f"qos-get-association {qos}")
    cinder(f"qos-disassociate {qos} {kind}")
    cinder(f"qos-disassociate-all {qos}")
    cinder(f"qos-delete {qos}")
    cinder("type-delete faster")
    cinder(f"quota-update {demo} --volumes 1")
    assert told(cinder(f"quota-show {demo}"), "volumes") == "1"
    assert "1" in cinder(f"quota-usage {demo}")
    cinder.refused("create 1", "VolumeLimitExceeded")
    cinder(f"quota-delete {demo}")
    cinder("quota-class-update default --volumes 12")
    assert told(cinder("quota-class-show default"), "volumes") == "12"
    assert told(cinder(f"quota-defaults {demo}"), "volumes") == "12"
    assert told(cinder("absolute-limits"), "totalVolumesUsed") == "1"
    assert host in cinder("service-list --withreplication")
    assert place in cinder("get-pools --detail")
    assert "replication_targets" in cinder(f"get-capabilities {host}")
    cinder(f"service-disable {host} cinder-volume --reason upkeep")
    assert "upkeep" in cinder("service-list")
    cinder(f"service-enable {host} cinder-volume")
    for command, words in (
        (f"freeze-host {host}", "Backends have no replicas"),
        (f"failover-host {host}", "Backends have no replicas"),
        ("encryption-type-create __DEFAULT__ luks", "encrypts no volumes"),
        ("group-create x __DEFAULT__", "has no groups"),
        ("backup-create typed", "has no backups"),
    ):
        cinder.refused(command, words)
    for name in (
        *("availability-zone-list", "rate-limits", "list-filters", "list-extensions"),
        *("work-cleanup", "cluster-list", "message-list", "attachment-list", "group-type-list"),
        *("group-list", "group-snapshot-list", "backup-list", "encryption-type-list"),
        *("version-list", "api-version"),
    ):
        assert cinder(name), name
    volume = told(cinder("show typed"), "id")
    assert volume in cinder(f"manageable-list {place}")
    cinder("unmanage typed")
    block_until(lambda: volume not in cinder("list"))
    cinder(f"manage {place} volume-{volume} --name managed")
    assert told(settled(cinder, "show", "managed"), "size") == "1"
    cinder("snapshot-create managed --name s")
    snapshot = told(settled(cinder, "snapshot-show", "s"), "id")
    assert snapshot in cinder(f"snapshot-manageable-list {place}")
    cinder("delete --cascade managed")
    block_until(lambda: "managed" not in cinder("list"))


def test_openstack_manages_types_limits_and_disks(openstack: Client, site: Site) -> None:
    openstack("volume create --size 1 data")
    volume = block_until(
        lambda: openstack.json("volume show data"), lambda found: found["status"] == "available"
    )
    openstack.refused("volume set --attached data", "does not have any attachments")
    (each,) = openstack.json("volume list --all-projects --long --status available")
    assert (each["ID"], each["Attached to"]) == (volume["id"], [])
    # The identity knows the names.
    for owner, number in (("--user ann", 1), ("--project other", 0)):
        assert len(openstack.json(f"volume list {owner}")) == number
    # The client gives no reason.
    openstack.refused("volume list --user nobody", "")
    openstack("volume snapshot create --volume data --property x=y s")
    block_until(
        lambda: openstack.json("volume snapshot list --volume data --long"),
        lambda found: [each["Status"] for each in found] == ["available"],
    )
    openstack("volume snapshot set --state error --property p=q --description d s")
    openstack("volume snapshot unset --property x s")
    shown = openstack.json("volume snapshot show s")
    assert (shown["status"], shown["properties"]) == ("error", {"p": "q"})
    openstack("volume snapshot delete --force s")
    openstack("volume type create --private --project demo private")
    openstack("volume type set --project other private")
    projects = openstack.json("volume type show private")["access_project_ids"]
    assert sorted(projects) == sorted(site.projects.values())
    openstack("volume type unset --project other private")
    assert [each["Name"] for each in openstack.json("volume type list --private")] == ["private"]
    assert [each["Name"] for each in openstack.json("volume type list --default")] == [
        "__DEFAULT__"
    ]
    openstack("volume qos create --consumer both --property a=1 limits")
    openstack("volume qos set --property b=2 limits")
    openstack("volume qos unset --property a limits")
    openstack("volume qos associate limits private")
    qos = openstack.json("volume qos show limits")
    assert (qos["associations"], qos["properties"]) == (["private"], {"b": "2"})
    openstack("volume qos disassociate --volume-type private limits")
    openstack("volume qos disassociate --all limits")
    assert [each["Name"] for each in openstack.json("volume qos list")] == ["limits"]
    openstack("volume qos delete limits")
    openstack("volume type delete private")
    offer = openstack.json("volume transfer request create --no-snapshots --name gift data")
    listed = openstack.json("volume transfer request list --all-projects")
    assert [each["ID"] for each in listed] == [offer["id"]]
    assert openstack.json("volume transfer request show", "gift")["volume_id"] == volume["id"]
    openstack(f"volume transfer request delete {offer['id']}")
    (message,) = [each["ID"] for each in openstack.json("volume message list")]
    assert openstack.json(f"volume message show {message}")["ID"] == message
    place = openstack.json("volume show data")["os-vol-host-attr:host"]
    host = place.partition("#")[0]

    def states() -> set[tuple[str, str | None]]:
        listed = openstack.json("volume service list --long --service cinder-volume")
        mine = [each for each in listed if each["Host"] == host]
        return {(each["Status"], each["Disabled Reason"]) for each in mine}

    openstack(f"volume service set --disable --disable-reason upkeep {host} cinder-volume")
    assert states() == {("disabled", "upkeep")}
    openstack(f"volume service set --enable {host} cinder-volume")
    assert states() == {("enabled", None)}
    disks = openstack.json(f"block storage volume manageable list {place}")
    assert len(disks) == 1
    assert openstack.json(f"block storage snapshot manageable list {place}") == []
    for command, words in (
        (f"volume host set --disable {host}", "Backends have no replicas"),
        ("volume backup create data", "has no backups"),
        ("block storage log level list", "daemon's configuration"),
        ("volume type create --encryption-provider luks x", "encrypts no volumes"),
    ):
        openstack.refused(command, words)
    openstack("quota set --volumes 7 --volume-type __DEFAULT__ demo")
    openstack("quota set --volumes 9 --gigabytes 99 --snapshots 8 demo")
    (quota,) = openstack.json("quota list --volume")
    assert (quota["Volumes"], quota["Gigabytes"], quota["Snapshots"]) == (9, 99, 8)
    openstack("quota delete --volume demo")
    for name in (
        *("quota show --volume --usage", "limits show --absolute", "extension list --volume"),
        "versions show --service block-storage",
    ):
        assert openstack.json(name), name
    assert openstack.json("block storage resource filter show volume")["Resource"] == "volume"
    openstack("volume delete data")
    block_until(lambda: openstack.json("volume list") == [])


def ready(openstack: Client, kind: str, name: str) -> Any:
    """Wait until a volume or a snapshot is available; return the object."""
    return block_until(
        lambda: openstack.json(f"{kind} show {name}"), lambda found: found["status"] == "available"
    )


@pytest.mark.parametrize("site", LONG, indirect=True)
def test_openstack_copies_and_moves_volumes(openstack: Client, site: Site, tmp_path: Path) -> None:
    openstack("volume create --image disk --size 1 root")
    root = ready(openstack, "volume", "root")
    openstack("volume create --source root copy")
    copy = ready(openstack, "volume", "copy")
    assert (copy["source_volid"], copy["size"]) == (root["id"], 1)
    for option, told in (("--read-only", "True"), ("--read-write", "False")):
        openstack(f"volume set {option} copy")
        assert openstack.json("volume show copy")["properties"] == {"readonly": told}
    openstack("volume type create --property volume_backend_name=other far")
    openstack("volume set --type far --retype-policy on-demand copy")
    block_until(
        lambda: openstack.json("volume show copy"),
        lambda found: (found["status"], found["type"]) == ("available", "far"),
    )
    (moved,) = volumes_in(tmp_path / "others")
    (stayed,) = site.daemon.files()
    assert moved.read_bytes()[:1000] == stayed.read_bytes()[:1000] != bytes(1000)
    openstack(f"volume migrate --host {root['os-vol-host-attr:host']} copy")
    ready(openstack, "volume", "copy")
    assert volumes_in(tmp_path / "others") == []
    openstack("volume snapshot create --volume copy before")
    ready(openstack, "volume snapshot", "before")
    openstack("volume revert before")
    ready(openstack, "volume", "copy")
    openstack("image create --volume root made")
    block_until(
        lambda: openstack.json("image show made"), lambda found: found["status"] == "active"
    )
    ready(openstack, "volume", "root")
    openstack("volume create --image made --size 1 again")
    ready(openstack, "volume", "again")


@pytest.mark.parametrize("site", LONG, indirect=True)
def test_the_session_of_the_examples_leaves_nothing(site: Site, tmp_path: Path) -> None:
    image = tmp_path / "laptop"
    image.write_bytes(noise(100_000))
    path = f"{CLIENTS}:{os.environ['PATH']}"
    run(site, ROOT / "examples/openstack-session.sh", image, PATH=path, OTHER_PROJECT="other")
    left = [each.name for each in site.daemon.volumes.iterdir() if not each.name.startswith(".")]
    assert left == []


def run(site: Site, *command: str | Path, **more: str) -> None:
    """Run a script of a library to its end."""
    done = subprocess.run(
        command,
        env={**site.settings, "LIMIT": str(LIMIT), **more},
        capture_output=True,
        text=True,
        timeout=LONG_LIMIT,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_cloud_layer_of_openstacksdk(site: Site, tmp_path: Path) -> None:
    image = tmp_path / "laptop"
    image.write_bytes(noise(1000))
    python = (CLIENTS / "python", "-W", "ignore")
    run(site, *python, SCRIPTS / "volumes.py", auth_url(site), PASSWORD, image)


def auth_url(site: Site) -> str:
    """Return the URL of the identity service."""
    return site.settings["OS_AUTH_URL"]


def test_gophercloud(site: Site) -> None:
    script = SCRIPTS / "storage.go"
    packages = {"GO111MODULE": "off", "GOPATH": "/usr/share/gocode"}
    run(site, "go", "run", script, auth_url(site), PASSWORD, site.projects["demo"], **packages)


def test_nova_attaches_and_detaches(openstack: Client, site: Site) -> None:
    """By python-cinderclient with a user's token and a service's, and by os-brick on the host."""
    openstack("volume create --size 1 --image disk data")
    volume = ready(openstack, "volume", "data")["id"]
    asked = {
        "url": auth_url(site),
        "project": site.projects["demo"],
        "password": PASSWORD,
        "volume": volume,
        "server": SERVER,
        "length": len(CONTENT),
    }
    done = subprocess.run(
        [CLIENTS / "python", "-W", "ignore", "-m", "tests.clients.nova_volumes"],
        input=json.dumps(asked),
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [
        "reserved",
        "attaching",
        hashlib.sha256(CONTENT).hexdigest(),
        "in-use",
        "detaching",
        "in-use",
        "detaching",
        "ConflictNovaUsingAttachment: Detach volume from instance"
        f" {SERVER} using the Compute API (HTTP 409)",
        "available",
    ]


@pytest.mark.parametrize("site", LONG, indirect=True)
def test_ansible(site: Site, tmp_path: Path) -> None:
    image = tmp_path / "laptop"
    image.write_bytes(noise(1000))
    login = {
        "auth_url": auth_url(site),
        "username": "ann",
        "password": PASSWORD,
        "project_name": "demo",
        "user_domain_id": "default",
        "project_domain_id": "default",
    }
    given = {
        "login": login,
        "limit": LIMIT,
        "file": str(image),
        "ansible_python_interpreter": str(ANSIBLE / "python"),
    }
    run(
        site,
        *(ANSIBLE / "ansible-playbook", "-i", "localhost,", "-e", json.dumps(given)),
        SCRIPTS / "volumes.yml",
        ANSIBLE_LOCALHOST_WARNING="false",
    )
