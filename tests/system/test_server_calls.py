"""Calls around servers, as clients of Nova make them, with servers in memory."""

from __future__ import annotations

import subprocess
from base64 import b64encode
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import requests

from bootvol.testing.backends import noise
from tests.daemons import TENANT
from tests.hypervisors import MEMORY, installed
from tests.processes import Process, process
from tests.waiting import LIMIT, block_until

CONFIG = f"""
{MEMORY}
[quota]
volumes = 100
snapshots = 100
instances = 100
key_pairs = 3
"""
_TEXT, _MAYBE = (str,), (str, type(None))
#: The keys and the types of their values in Nova's API reference, for responses of v2.0 and of v2.1
#: without a microversion, except keys only for admins. The ids of servers are bootvol's own.
NOVA_SERVER = {
    **dict.fromkeys(("OS-DCF:diskConfig", "OS-EXT-AZ:availability_zone", "status"), _TEXT),
    **dict.fromkeys(("OS-EXT-STS:vm_state", "accessIPv4", "accessIPv6", "created"), _TEXT),
    **dict.fromkeys(("config_drive", "hostId", "image", "name", "updated"), _TEXT),
    **dict.fromkeys(("tenant_id", "user_id"), _TEXT),
    **dict.fromkeys(("OS-EXT-STS:power_state", "progress"), (int,)),
    **dict.fromkeys(("OS-EXT-STS:task_state", "key_name", "OS-SRV-USG:launched_at"), _MAYBE),
    "OS-SRV-USG:terminated_at": _MAYBE,
    **dict.fromkeys(("addresses", "flavor", "metadata"), (dict,)),
    **dict.fromkeys(("links", "os-extended-volumes:volumes_attached", "security_groups"), (list,)),
}
NOVA_FLAVOR = {
    **dict.fromkeys(("id", "name", "swap"), _TEXT),
    **dict.fromkeys(("ram", "vcpus", "disk", "OS-FLV-EXT-DATA:ephemeral"), (int,)),
    **dict.fromkeys(("OS-FLV-DISABLED:disabled", "os-flavor-access:is_public"), (bool,)),
    "rxtx_factor": (float,),
    "links": (list,),
}
NOVA_IMAGE = {
    **dict.fromkeys(("id", "name", "status"), _TEXT),
    **dict.fromkeys(("created", "updated"), _MAYBE),
    **dict.fromkeys(("progress", "minDisk", "minRam"), (int,)),
    "OS-EXT-IMG-SIZE:size": (int, type(None)),
    "metadata": (dict,),
    "links": (list,),
}
BRIEF = {"id": _TEXT, "name": _TEXT, "links": (list,)}


def is_of(shown: dict[str, Any], types: Mapping[str, tuple[type, ...]]) -> bool:
    """Return whether a shown object has exactly these keys, with values of these types."""
    return shown.keys() == types.keys() and all(
        type(value) in types[key] for key, value in shown.items()
    )


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A daemon with an image and servers in memory."""
    folder = tmp_path_factory.mktemp("daemon")
    (folder / "images").mkdir()
    (folder / "images" / "disk.raw").write_bytes(noise(1000))
    with process(folder, CONFIG, installed(folder)) as daemon:
        yield daemon


def ask(
    daemon: Process, method: str, path: str, body: Any = None, base: str = "v1.1"
) -> tuple[int, Any]:
    """Send a request; return the status and the body."""
    answer = requests.request(
        method,
        f"{daemon.url}/{base}/{TENANT}/{path}",
        json=body,
        headers={"X-Auth-Token": "ann"},
        timeout=LIMIT,
    )
    return answer.status_code, answer.json() if answer.content else None


def booted(daemon: Process, base: str = "v1.1", **more: Any) -> Any:
    """Boot a server from a new volume of the image; return the running server."""
    disk = {
        "source_type": "image",
        "destination_type": "volume",
        "uuid": "disk.raw",
        "volume_size": "1",
        "boot_index": "0",
        "delete_on_termination": True,
    }
    wanted = {"name": "x", "flavorRef": "100", "block_device_mapping_v2": [disk], **more}
    status, made = ask(daemon, "POST", "servers", {"server": wanted}, base)
    assert status == 202, made
    return until(daemon, made["server"]["id"], "ACTIVE", base)


def until(daemon: Process, server: Any, wanted: str, base: str = "v1.1") -> Any:
    """Wait until a server has a status and no task; return the server."""
    return block_until(
        lambda: ask(daemon, "GET", f"servers/{server}", None, base)[1]["server"],
        lambda found: found["status"] == wanted and found["OS-EXT-STS:task_state"] is None,
    )


@pytest.mark.parametrize("base", ["v1.1", "v2"])
def test_a_server_is_shown_with_novas_keys(daemon: Process, base: str) -> None:
    server = booted(daemon, base)
    own = {"id": (int,), "uuid": _TEXT} if base == "v1.1" else {"id": _TEXT}
    assert is_of(server, {**NOVA_SERVER, **own}), server
    (brief,) = (
        each
        for each in ask(daemon, "GET", "servers", None, base)[1]["servers"]
        if each["id"] == server["id"]
    )
    assert is_of(brief, {**BRIEF, "id": own["id"]}), brief
    (volume,) = server["os-extended-volumes:volumes_attached"]
    status, shown = ask(daemon, "GET", f"os-volumes/{volume['id']}", None, base)
    assert status == 200
    assert shown["volume"]["id"] == volume["id"]
    (place,) = shown["volume"]["attachments"]
    assert (place["serverId"], place["volumeId"]) == (server["id"], volume["id"])
    for link, begin in zip(server["links"], (f"/{base}/", "/"), strict=True):
        assert link["href"] == f"{daemon.url}{begin}{TENANT}/servers/{server['id']}"
    assert server["image"] == ""
    # The volume made from an image for the server is bootable.
    assert ask(daemon, "GET", f"hp-bootable-volumes/{volume['id']}", None, base)[0] == 200


@pytest.mark.parametrize("base", ["v1.1", "v2"])
@pytest.mark.parametrize(
    ("kind", "types"), [("flavor", NOVA_FLAVOR), ("image", NOVA_IMAGE)], ids=["flavor", "image"]
)
def test_flavors_and_images_are_shown_with_novas_keys(
    daemon: Process, kind: str, types: Mapping[str, tuple[type, ...]], base: str
) -> None:
    brief, *_ = ask(daemon, "GET", f"{kind}s", None, base)[1][f"{kind}s"]
    shown, *_ = ask(daemon, "GET", f"{kind}s/detail", None, base)[1][f"{kind}s"]
    assert is_of(brief, BRIEF), brief
    assert is_of(shown, types), shown
    assert ask(daemon, "GET", f"{kind}s/{shown['id']}", None, base) == (200, {kind: shown})
    assert brief == {key: shown[key] for key in BRIEF}
    assert [each["rel"] for each in shown["links"]] == ["self", "bookmark"]


def test_blank_and_snapshot_disks(daemon: Process) -> None:
    root = daemon.create("disk.raw")
    daemon.until_settled()
    made = ask(daemon, "POST", "os-snapshots", {"snapshot": {"volume_id": str(root)}})
    snapshot = made[1]["snapshot"]["id"]
    daemon.until_settled()
    uuid = ask(daemon, "GET", f"os-snapshots/{snapshot}", None, "v2")[1]["snapshot"]["id"]
    disks = [
        {"source_type": "snapshot", "destination_type": "volume", "uuid": uuid, "boot_index": 0},
        {"source_type": "blank", "destination_type": "volume", "volume_size": "2"},
        {"source_type": "volume", "uuid": root, "boot_index": None, "device_name": "/dev/vdf"},
    ]
    server = booted(daemon, block_device_mapping_v2=disks)
    path = f"servers/{server['id']}/os-volume_attachments"
    found = ask(daemon, "GET", path)[1]["volumeAttachments"]
    assert sorted(each["device"] for each in found) == ["/dev/vdb", "/dev/vdf", "vda"]
    sizes = {
        each["device"]: ask(daemon, "GET", f"os-volumes/{each['id']}")[1]["volume"]["size"]
        for each in found
    }
    assert sizes == {"vda": 1, "/dev/vdb": 2, "/dev/vdf": 1}


ROOT = {"source_type": "image", "uuid": "disk.raw", "volume_size": 1, "boot_index": 0}
TO_VOLUME = {**ROOT, "destination_type": "volume"}


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"imageRef": "other.raw"}, "imageRef is not supported"),
        ({"imageRef": "disk.raw", "block_device_mapping_v2": []}, "imageRef is not supported"),
        ({"block_device_mapping_v2": [ROOT]}, "destination_type local is not supported"),
        (
            {"block_device_mapping_v2": [{**ROOT, "destination_type": "local"}]},
            "destination_type local is not supported",
        ),
        ({"block_device_mapping_v2": [{**TO_VOLUME, "boot_index": 1}]}, "Boot sequence"),
        ({"block_device_mapping_v2": [TO_VOLUME, TO_VOLUME]}, "Boot sequence"),
        ({"block_device_mapping_v2": [{**TO_VOLUME, "uuid": "none"}]}, "failed to get image none"),
        ({"block_device_mapping_v2": [{**TO_VOLUME, "uuid": None}]}, "needs a uuid"),
        ({"block_device_mapping_v2": [{**TO_VOLUME, "volume_size": ""}]}, "needs a volume_size"),
        ({"block_device_mapping_v2": [{**TO_VOLUME, "guest_format": "swap"}]}, "guest_format"),
        ({"block_device_mapping_v2": [{**TO_VOLUME, "disk_uuid": "x"}]}, "disk_uuid"),
        ({"block_device_mapping_v2": [{**TO_VOLUME, "source_type": "tape"}]}, "source_type"),
        ({"block_device_mapping_v2": [{**TO_VOLUME, "source_type": "blank"}]}, "takes no uuid"),
        (
            {"block_device_mapping": [{"device_name": "vda", "virtual_name": "ephemeral0"}]},
            "virtual_name cannot be used here",
        ),
        ({"block_device_mapping": [{"device_name": "vda", "image_id": "x"}]}, "image_id"),
        (
            {
                "block_device_mapping": [{"device_name": "vda", "volume_id": "1"}],
                "block_device_mapping_v2": [TO_VOLUME],
            },
            "different block_device_mapping syntaxes",
        ),
        ({"block_device_mapping_v2": []}, "No boot volume"),
        ({"personality": [{"path": "/x", "contents": ""}]}, "personality cannot be used here"),
        ({"user_data": "not base 64!"}, "valid base 64"),
        ({"config_drive": "some-image"}, "config_drive"),
        ({"key_name": "none"}, "Invalid key_name provided."),
        ({"availability_zone": "mars"}, "availability zone is not available"),
    ],
)
def test_what_cannot_be_heeded_is_refused_by_name(
    daemon: Process, more: dict[str, Any], told: str
) -> None:
    wanted = {"name": "x", "flavorRef": "100", "block_device_mapping_v2": [TO_VOLUME], **more}
    if "block_device_mapping" in more and "block_device_mapping_v2" not in more:
        del wanted["block_device_mapping_v2"]
    before = ask(daemon, "GET", "os-volumes")
    status, answer = ask(daemon, "POST", "servers", {"server": wanted})
    assert status == 400, answer
    assert told in answer["badRequest"]["message"]
    assert ask(daemon, "GET", "os-volumes") == before


def test_the_image_to_boot_from_may_be_named_twice(daemon: Process) -> None:
    server = booted(daemon, imageRef="disk.raw")
    assert (server["image"], len(server["os-extended-volumes:volumes_attached"])) == ("", 1)


@pytest.mark.parametrize("key", ["source_volid", "backup_id"])
def test_a_volume_of_what_cannot_be_had_is_refused(daemon: Process, key: str) -> None:
    status, answer = ask(daemon, "POST", "os-volumes", {"volume": {"size": 1, key: "x"}})
    assert status == 400
    assert key in answer["badRequest"]["message"]


def test_numbers_come_as_digits(daemon: Process) -> None:
    server = booted(daemon)["id"]
    body: Any
    for length in (1, "1", None, "", -1, "10"):
        body = {"os-getConsoleOutput": {"length": length}}
        status, answer = ask(daemon, "POST", f"servers/{server}/action", body)
        assert (status, answer) == (200, {"output": "The guest is ready.\r\n"})
    for wrong in ("x", "1.5", 0.5, "-7", True):
        body = {"os-getConsoleOutput": {"length": wrong}}
        assert ask(daemon, "POST", f"servers/{server}/action", body)[0] == 400, wrong


def test_actions(daemon: Process) -> None:
    server = booted(daemon)["id"]
    path = f"servers/{server}/action"
    body: Any
    assert ask(daemon, "POST", path, {"os-start": None})[0] == 409
    assert ask(daemon, "POST", path, {"os-stop": None}) == (202, None)
    until(daemon, server, "SHUTOFF")
    assert ask(daemon, "POST", path, {"os-stop": None})[0] == 409
    assert ask(daemon, "POST", path, {"reboot": {"type": "SOFT"}})[0] == 409
    assert ask(daemon, "POST", path, {"reboot": {"type": "hard"}})[0] == 202
    until(daemon, server, "ACTIVE")
    assert ask(daemon, "POST", path, {"reboot": {"type": "SOFT"}})[0] == 202
    until(daemon, server, "ACTIVE")
    for body in ({"reboot": {}}, {"reboot": None}, {"reboot": {"type": "WARM"}}, {"resize": {}}):
        assert ask(daemon, "POST", path, body)[0] == 400
    for body in ({}, []):
        assert ask(daemon, "POST", path, body)[0] == 422


def test_metadata_and_name(daemon: Process) -> None:
    server = booted(daemon, metadata={"a": "1"})["id"]
    path = f"servers/{server}/metadata"
    assert ask(daemon, "GET", path) == (200, {"metadata": {"a": "1"}})
    answer = ask(daemon, "POST", path, {"metadata": {"b": "2"}})
    assert answer == (200, {"metadata": {"a": "1", "b": "2"}})
    assert ask(daemon, "PUT", f"{path}/a", {"meta": {"a": "3"}}) == (200, {"meta": {"a": "3"}})
    assert ask(daemon, "PUT", f"{path}/a", {"meta": {"b": "3"}})[0] == 400
    assert ask(daemon, "DELETE", f"{path}/b") == (204, None)
    assert ask(daemon, "DELETE", f"{path}/b")[0] == 404
    assert ask(daemon, "GET", f"{path}/b")[0] == 404
    many = {f"k{n}": "v" for n in range(129)}
    assert ask(daemon, "PUT", path, {"metadata": many})[0] == 413
    assert ask(daemon, "PUT", path, {"metadata": {}}) == (200, {"metadata": {}})
    status, answer = ask(daemon, "PUT", f"servers/{server}", {"server": {"name": "new"}})
    assert (status, answer["server"]["name"]) == (200, "new")
    assert ask(daemon, "PUT", f"servers/{server}", {"server": {"name": ""}})[0] == 400
    assert ask(daemon, "PUT", f"servers/{server}", {"server": {"accessIPv4": "::1"}})[0] == 400


def test_lists_page_and_filters_filter(daemon: Process) -> None:
    names = [f"list-{n}" for n in range(3)]
    made = [booted(daemon, name=name)["id"] for name in names]
    assert ask(daemon, "POST", f"servers/{made[0]}/action", {"os-stop": None})[0] == 202
    until(daemon, made[0], "SHUTOFF")

    def found(query: str) -> list[int]:
        status, answer = ask(daemon, "GET", f"servers/detail?{query}")
        assert status == 200, answer
        return [each["id"] for each in answer["servers"] if each["id"] in made]

    assert found("name=list-") == made[::-1]
    assert found("name=^list-1$") == [made[1]]
    assert found("name=list-&status=shutoff") == [made[0]]
    assert found("image=disk.raw") == []
    assert found("flavor=100&name=list-") == made[::-1]
    assert found("changes-since=2001-01-01T00:00:00Z&name=list-") == made[::-1]
    assert found("changes-since=2201-01-01T00:00:00Z") == []
    assert found("all_tenants=0&deleted=False&nobody=knows&name=list-") == made[::-1]
    for query in ("all_tenants=1", "ip=10", "host=x", "changes-since=x", "limit=x", "marker=0"):
        status, answer = ask(daemon, "GET", f"servers/detail?{query}")
        assert status == 400, (query, answer)
    shown, url = [], f"{daemon.url}/v1.1/{TENANT}/servers?limit=1&name=list-"
    for _ in range(3):
        page = requests.get(url, headers={"X-Auth-Token": "ann"}, timeout=LIMIT).json()
        shown += [each["id"] for each in page["servers"]]
        url = page.get("servers_links", [{"href": ""}])[0]["href"]
    assert (shown, url) == (made[::-1], "")
    assert ask(daemon, "GET", "images?status=QUEUED")[1] == {"images": []}
    assert ask(daemon, "GET", "images?changes-since=2001-01-01T00:00:00Z")[0] == 400
    assert ask(daemon, "GET", "flavors?limit=1")[1]["flavors_links"][0]["rel"] == "next"
    assert ask(daemon, "GET", "flavors?minRam=99999999")[1] == {"flavors": []}


def test_key_pairs(daemon: Process, tmp_path: Path) -> None:
    status, answer = ask(daemon, "POST", "os-keypairs", {"keypair": {"name": "made here"}})
    assert status == 200
    made = answer["keypair"]
    (tmp_path / "private").write_text(made["private_key"])
    (tmp_path / "private").chmod(0o600)
    public = run("ssh-keygen", "-y", "-f", tmp_path / "private")
    assert public.split()[:2] == made["public_key"].split()[:2]
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "me@host", "-f", tmp_path / "own")
    own = (tmp_path / "own.pub").read_text()
    body = {"keypair": {"name": "own", "public_key": own}}
    status, answer = ask(daemon, "POST", "os-keypairs", body)
    assert status == 200
    assert answer["keypair"].keys() == {"name", "public_key", "fingerprint", "user_id"}
    told = run("ssh-keygen", "-l", "-E", "md5", "-f", tmp_path / "own.pub").split()[1]
    assert told == f"MD5:{answer['keypair']['fingerprint']}"
    assert ask(daemon, "POST", "os-keypairs", body)[0] == 409
    listed = ask(daemon, "GET", "os-keypairs.json")[1]["keypairs"]
    assert [each["keypair"]["name"] for each in listed] == ["made here", "own"]
    shown = ask(daemon, "GET", "os-keypairs/own")[1]["keypair"]
    assert shown["public_key"] == own.strip()
    for wrong in ("", "a/b", "a\nb", "x" * 256, " "):
        assert ask(daemon, "POST", "os-keypairs", {"keypair": {"name": wrong}})[0] == 400
    for wrong in ("x", "ssh-rsa AAAA", own.replace("ed25519", "rsa"), own + own, "ssh-rsa \0"):
        body = {"keypair": {"name": "wrong", "public_key": wrong}}
        assert ask(daemon, "POST", "os-keypairs", body)[0] == 400
    ask(daemon, "POST", "os-keypairs", {"keypair": {"name": "third", "public_key": own}})
    body = {"keypair": {"name": "fourth", "public_key": own}}
    assert ask(daemon, "POST", "os-keypairs", body)[0] == 413
    # Another user of the tenant has other key pairs.
    others = requests.get(
        f"{daemon.url}/v1.1/{TENANT}/os-keypairs", headers={"X-Auth-Token": "root"}, timeout=LIMIT
    )
    assert others.json() == {"keypairs": []}
    server = booted(daemon, key_name="own", user_data=b64encode(b"#!/bin/sh").decode())
    assert (server["key_name"], server["config_drive"]) == ("own", "True")
    assert ask(daemon, "DELETE", "os-keypairs/own") == (202, None)
    assert ask(daemon, "DELETE", "os-keypairs/own")[0] == 404
    assert ask(daemon, "GET", f"servers/{server['id']}")[1]["server"]["key_name"] == "own"


def run(*command: str | Path) -> str:
    """Run a command; return its output."""
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=LIMIT).stdout
