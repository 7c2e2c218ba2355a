"""Clients of the Block Storage API from PyPI: the commands of docs/block-storage.md, and more."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import attrs
import pytest
from demo.bootdisk import HELLO, disk

from bootvol.api.cinder.dialect import CINDER
from bootvol.api.operations import Operation
from bootvol.testing.backends import noise
from tests.commands import ROOT, Client, client, environment
from tests.openstack.sites import KINDS, Site, site_of
from tests.people import PEOPLE
from tests.processes import cli, process
from tests.waiting import LIMIT, block_until


class Serving(Protocol):
    """A running daemon, in this process or another one."""

    @property
    def url(self) -> str:
        """The URL of the API."""

    @property
    def folder(self) -> Path:
        """The folder of all the daemon's files."""


@attrs.frozen
class OpenStack:
    """The command ``openstack`` of a user of a daemon."""

    daemon: Serving
    client: Client
    project: str = "demo"

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        found = self.client.run("--os-project-name", self.project, *arguments)
        return subprocess.CompletedProcess(arguments, *found)

    def __call__(self, *arguments: str) -> None:
        """Run a command without a result."""
        done = self.run(*arguments)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)

    def json(self, *arguments: str) -> Any:
        """Return the result of a command."""
        done = self.run(*arguments, "-f", "json")
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return json.loads(done.stdout)

    def available(self, kind: tuple[str, ...], name: str) -> Any:
        """Wait until a volume or snapshot is available; return the object."""
        return block_until(
            lambda: self.json(*kind, "show", name), lambda found: found["status"] == "available"
        )

    def gone(self, kind: tuple[str, ...], name: str) -> None:
        """Wait until a volume or snapshot is gone."""
        block_until(
            lambda: (
                [each["Name"] for each in self.json(*kind, "list") if each["Name"] == name] == []
            )
        )


@pytest.fixture(scope="module", params=KINDS)
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """A daemon with log-ins and an image."""
    with site_of(request, request.param, tmp_path_factory.mktemp("daemon")) as site:
        site.bring("disk", noise(1000))
        yield site


@pytest.fixture(scope="module")
def openstack(site: Site) -> Iterator[OpenStack]:
    """Ann's client."""
    with client("openstack", site.settings) as found:
        yield OpenStack(site.daemon, found)


VOLUME = ("volume",)
SNAPSHOT = ("volume", "snapshot")


def test_a_volume_of_an_image_has_a_life(openstack: OpenStack) -> None:
    made = openstack.json(
        "volume", "create", "--image", "disk", "--size", "1", "--description", "d",
        "--property", "k=v", "root",
    )  # fmt: skip
    assert (made["size"], made["type"]) == (1, "__DEFAULT__")
    shown = openstack.available(VOLUME, "root")
    assert (shown["id"], shown["properties"]) == (made["id"], {"k": "v"})
    image = openstack.json("image", "show", "disk")["id"]
    assert shown["volume_image_metadata"]["image_id"] == image
    openstack("volume", "set", "--name", "renamed", "--property", "a=b", "root")
    openstack("volume", "unset", "--property", "k", "renamed")
    shown = openstack.json("volume", "show", made["id"])
    assert (shown["name"], shown["properties"]) == ("renamed", {"a": "b"})
    openstack("volume", "snapshot", "create", "--volume", "renamed", "--property", "s=1", "before")
    snapshot = openstack.available(SNAPSHOT, "before")
    assert (snapshot["volume_id"], snapshot["properties"]) == (made["id"], {"s": "1"})
    openstack("volume", "create", "--snapshot", "before", "copy")
    copy = openstack.available(VOLUME, "copy")
    assert (copy["snapshot_id"], copy["size"]) == (snapshot["id"], 1)
    listed = openstack.json("volume", "list", "--property", "a=b")
    assert [each["Name"] for each in listed] == ["renamed"]
    summary = openstack.json("volume", "summary")
    assert (summary["Total Count"], summary["Total Size"]) == (2, 2)
    assert (copy["bootable"], copy["volume_image_metadata"]["image_id"]) == (True, image)
    openstack("volume", "set", "--non-bootable", "--image-property", "os_distro=debian", "copy")
    openstack("volume", "unset", "--image-property", "image_name", "copy")
    copy = openstack.json("volume", "show", "copy")
    facts = copy["volume_image_metadata"]
    assert (copy["bootable"], facts["os_distro"]) == (False, "debian")
    assert "image_name" not in facts
    openstack("volume", "set", "--size", "2", "copy")
    block_until(lambda: openstack.json("volume", "show", "copy")["size"] == 2)
    openstack("volume", "snapshot", "set", "--name", "after", "before")
    openstack("volume", "snapshot", "delete", "after")
    openstack.gone(SNAPSHOT, "after")
    openstack("volume", "snapshot", "create", "--volume", "copy", "with")
    openstack.available(SNAPSHOT, "with")
    openstack("volume", "delete", "--purge", "copy")
    openstack.gone(SNAPSHOT, "with")
    openstack("volume", "delete", "--force", "renamed")
    openstack.gone(VOLUME, "renamed")
    assert openstack.json("volume", "list") == []


def test_types_and_quotas_are_an_admins(openstack: OpenStack) -> None:
    openstack("volume", "type", "create", "--description", "d", "--property", "k=v", "fast")
    assert openstack.json("volume", "type", "show", "fast")["properties"] == {"k": "v"}
    openstack("volume", "type", "set", "--property", "a=b", "--name", "faster", "fast")
    openstack("volume", "type", "unset", "--property", "k", "faster")
    assert openstack.json("volume", "type", "show", "faster")["properties"] == {"a": "b"}
    openstack("volume", "create", "--type", "faster", "--size", "1", "typed")
    assert openstack.available(VOLUME, "typed")["type"] == "faster"
    openstack("volume", "delete", "typed")
    openstack.gone(VOLUME, "typed")
    openstack("volume", "type", "delete", "faster")
    names = [each["Name"] for each in openstack.json("volume", "type", "list")]
    assert names == ["__DEFAULT__"]
    zones = openstack.json("availability", "zone", "list", "--volume")
    assert zones == [{"Zone Name": "nova", "Zone Status": "available"}]


def test_a_volume_changes_hands(openstack: OpenStack) -> None:
    openstack("volume", "create", "--size", "1", "gift")
    openstack.available(VOLUME, "gift")
    offer = openstack.json("volume", "transfer", "request", "create", "--name", "offer", "gift")
    listed = openstack.json("volume", "transfer", "request", "list")
    assert [each["ID"] for each in listed] == [offer["id"]]
    taker = attrs.evolve(openstack, project="other")
    key = ("--auth-key", offer["auth_key"])
    taken = taker.json("volume", "transfer", "request", "accept", *key, offer["id"])
    assert taken["volume_id"] == offer["volume_id"]
    assert openstack.json("volume", "list") == []
    assert taker.available(VOLUME, "gift")["id"] == offer["volume_id"]
    taker("volume", "delete", "gift")
    taker.gone(VOLUME, "gift")


def test_a_machine_boots_from_the_volume_of_an_image(tmp_path: Path) -> None:
    """The commands at the beginning of README's conversation, and then a boot."""
    raw, image = tmp_path / "disk.raw", tmp_path / "disk.qcow2"
    raw.write_bytes(disk())
    command = ["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", str(raw), str(image)]
    subprocess.run(command, check=True, timeout=LIMIT)
    folder = tmp_path / "daemon"
    folder.mkdir()
    with process(folder, "writable = true\nquota_gib = 1\n", identity=PEOPLE) as daemon:
        user = environment(daemon.url, folder, {})
        with client("openstack", user) as ran:
            openstack = OpenStack(daemon, ran)
            openstack("image", "create", "--file", str(image), "--disk-format", "qcow2", "debian")
            openstack("volume", "create", "--image", "debian", "--size", "1", "--bootable", "root")
            made = openstack.available(VOLUME, "root")
        assert (made["bootable"], made["volume_image_metadata"]["image_name"]) == (True, "debian")
        for count in ("01", "02"):
            booted = cli("volume", "boot", "1", "--seconds", "20", env=user)
            assert f"{HELLO}{count}." in booted.stdout, booted.stderr


def test_operators_see_and_set_what_they_may(openstack: OpenStack) -> None:
    (own, daemon) = block_until(
        lambda: openstack.json("volume", "service", "list"), lambda found: len(found) == 2
    )
    assert (own["Binary"], own["State"], daemon["Binary"]) == (
        "cinder-volume",
        "up",
        "cinder-scheduler",
    )
    (pool,) = openstack.json("volume", "backend", "pool", "list", "--long")
    assert pool["Name"] == f"{own['Host']}#local"
    figures = pool["Capabilities"]
    assert 0 < figures["free_capacity_gb"] <= figures["total_capacity_gb"]
    capabilities = openstack.json("volume", "backend", "capability", "show", own["Host"])
    assert isinstance(capabilities, list)
    openstack("volume", "create", "--size", "1", "set")
    openstack.available(VOLUME, "set")
    openstack("volume", "snapshot", "create", "--volume", "set", "marked")
    openstack.available(SNAPSHOT, "marked")
    for kind, name in ((SNAPSHOT, "marked"), (VOLUME, "set")):
        for state in ("error", "available"):
            openstack(*kind, "set", "--state", state, name)
            assert openstack.json(*kind, "show", name)["status"] == state
    openstack("volume", "set", "--detached", "set")
    openstack("volume", "delete", "--purge", "set")
    openstack("quota", "set", "--volumes", "7", "--per-volume-gigabytes", "5", "demo")
    quota = {
        each["Resource"]: each["Limit"] for each in openstack.json("quota", "show", "--volume")
    }
    assert (quota["volumes"], quota["per-volume-gigabytes"]) == (7, 5)
    too_large = openstack.run("volume", "create", "--size", "6", "large")
    assert "larger than maximum allowed limit 5G" in too_large.stdout + too_large.stderr
    openstack("quota", "delete", "--volume", "demo")


def test_clients_find_messages_and_empty_lists(openstack: OpenStack, site: Site) -> None:
    site.bring("page", b"<!DOCTYPE html><html></html>" * 100)
    openstack("volume", "create", "--image", "page", "--size", "1", "broken")
    block_until(
        lambda: openstack.json("volume", "show", "broken"), lambda found: found["status"] == "error"
    )
    early = ("--os-volume-api-version", "3.3")
    broken = openstack.json("volume", "show", "broken")["id"]

    def messages() -> list[Any]:
        # Other tests of this daemon leave messages, too.
        found = openstack.json(*early, "volume", "message", "list")
        return [each for each in found if each["Resource UUID"] == broken]

    (message,) = messages()
    assert message["User Message"].startswith("copy image to volume: ")
    openstack(*early, "volume", "message", "delete", message["ID"])
    assert messages() == []
    openstack("volume", "delete", "broken")
    late = ("--os-volume-api-version", "3.71")
    filters = openstack.json("block", "storage", "resource", "filter", "list")
    assert "volume" in {each["Resource"] for each in filters}
    for command in (
        ("block", "storage", "cluster", "list"),
        ("volume", "group", "list"),
        ("volume", "group", "type", "list"),
        ("volume", "group", "snapshot", "list"),
        ("volume", "backup", "list"),
        ("consistency", "group", "list"),
    ):
        assert openstack.json(*late, *command) == [], command
    refused = openstack.run("volume", "backup", "create", "nosuch")
    assert refused.returncode != 0


def test_a_refusal_says_why(openstack: OpenStack) -> None:
    for arguments, words in (
        (("volume", "show", "nosuch"), "No Volume found for nosuch"),
        (("volume", "create", "--size", "1", "--type", "nosuch", "v"), "nosuch"),
        (("volume", "create", "--image", "nosuch", "--size", "1", "v"), "nosuch"),
    ):
        done = openstack.run(*arguments)
        assert done.returncode != 0
        assert words in done.stderr + done.stdout


def test_the_document_lists_the_served_calls() -> None:
    table = (ROOT / "docs" / "block-storage.md").read_text().partition("## Calls")[2]
    told = re.findall("`(?:GET|POST|PUT|DELETE) ([^`]+)`", table)
    served = {
        re.sub("<[a-z_]+>", "{}", path)
        for each in CINDER.declared
        if isinstance(each, Operation)
        for path in each.paths
    }
    assert {re.sub("{[a-z]+}", "{}", path) for path in told} == served - {""}
