"""Clients of OpenStack find images by name, and create volumes from the found images."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from hashlib import sha512
from typing import Any

import pytest

import openstack
from bootvol.testing.backends import noise
from openstack import exceptions
from tests.people import PASSWORD, PEOPLE
from tests.processes import BIN, Process, cli, process
from tests.servers import free_port
from tests.waiting import LIMIT

# The warnings are openstacksdk's own.
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")

CONTENT = noise(1000 * 1000)
INDEX = f"""\
[[images]]
id = "4"
file = "debian.raw"
name = "Debian 12"
format = "raw"
min_disk = 1
sha512 = "{sha512(CONTENT).hexdigest()}"
"""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A daemon with log-ins, one image, and some more."""
    folder = tmp_path_factory.mktemp("daemon")
    images = folder / "images"
    images.mkdir()
    (images / "debian.raw").write_bytes(CONTENT)
    (images / "index.toml").write_text(INDEX)
    for number in range(30):
        (images / f"other-{number:02}").write_bytes(b"")
    with process(folder, identity=PEOPLE) as daemon:
        yield daemon


def as_ann(daemon: Process) -> dict[str, str]:
    """Return the environment variables of clients."""
    return {
        "OS_AUTH_URL": f"{daemon.url}/identity",
        "OS_USERNAME": "ann",
        "OS_PASSWORD": PASSWORD,
        "OS_PROJECT_NAME": "demo",
        "OS_USER_DOMAIN_NAME": "Default",
        "OS_PROJECT_DOMAIN_NAME": "Default",
        "OS_IDENTITY_API_VERSION": "3",
    }


def glance(daemon: Process, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run glanceclient's command line."""
    return subprocess.run(
        [BIN / "glance", *arguments],
        env={**os.environ, **as_ann(daemon)},
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
    )


@pytest.fixture
def cloud(daemon: Process) -> Iterator[Any]:
    """The library behind the command `openstack`."""
    settings: dict[str, Any] = {name[3:].lower(): value for name, value in as_ann(daemon).items()}
    with openstack.connect(**settings, load_yaml_config=False) as connection:
        yield connection


def test_openstacksdk_finds_an_image_and_a_volume_is_created_from_it(
    daemon: Process, cloud: Any
) -> None:
    image = cloud.image.find_image("Debian 12", ignore_missing=False)
    assert (image.id, image.status, image.size) == ("4", "active", len(CONTENT))
    assert (image.disk_format, image.container_format, image.min_disk) == ("raw", "bare", 1)
    assert (image.hash_algo, image.hash_value) == ("sha512", sha512(CONTENT).hexdigest())
    assert cloud.image.get_image("4").name == "Debian 12"
    wanted = {"volume": {"size": 1, "imageRef": image.id}}
    volumes = {"service_type": "volume", "interface": "public"}
    answer = cloud.session.post("/os-volumes", json=wanted, endpoint_filter=volumes)
    number = answer.json()["volume"]["id"]
    while True:
        path = f"/hp-bootable-volumes/{number}"
        shown = cloud.session.get(path, endpoint_filter=volumes).json()["volume"]
        if shown["status"] != "creating" and shown["status"] != "downloading":
            break
    assert (shown["status"], shown["sourceImageRef"]) == ("available", "4")


def test_openstacksdk_lists_page_by_page(cloud: Any) -> None:
    names = [each.name for each in cloud.image.images(limit=7, sort="name:asc")]
    assert names == ["Debian 12", *(f"other-{number:02}" for number in range(30))]
    assert [each.id for each in cloud.image.images(name="other-07")] == ["other-07"]
    assert list(cloud.image.images(visibility="private")) == []


def test_openstacksdk_is_told_what_is_wrong(cloud: Any) -> None:
    assert cloud.image.find_image("nowhere") is None
    with pytest.raises(exceptions.NotFoundException, match="Image nowhere could not be found"):
        cloud.image.get_image("nowhere")
    with pytest.raises(exceptions.BadRequestException, match="Invalid sort key: colour"):
        list(cloud.image.images(sort="colour"))


def test_glanceclient(daemon: Process) -> None:
    listed = glance(daemon, "image-list", "--page-size", "7")
    assert listed.returncode == 0, listed.stderr
    assert "| 4        | Debian 12 |" in listed.stdout
    assert listed.stdout.count("other-") == 2 * 30
    shown = glance(daemon, "image-show", "4")
    assert "| os_hash_algo     | sha512" in shown.stdout, shown.stderr
    missing = glance(daemon, "image-show", "nowhere")
    assert missing.returncode == 1
    assert "nowhere" in missing.stderr


def test_our_own_client_logs_in_and_finds_an_image_by_its_name(daemon: Process) -> None:
    made = cli("volume", "create", "--image", "Debian 12", "--size", "1", env=as_ann(daemon))
    assert made.returncode == 0, made.stderr
    shown = cli("volume", "show", str(json.loads(made.stdout)["id"]), env=as_ann(daemon))
    assert json.loads(shown.stdout)["sourceImageRef"] == "4"
    for changed, code, told in (
        ({"OS_PASSWORD": "wrong"}, 3, "requires authentication. (HTTP 401)"),
        ({"OS_PASSWORD": ""}, 3, "requires authentication. (HTTP 401)"),
        ({"OS_USERNAME": ""}, 3, "OS_USERNAME is not set"),
        ({"OS_PROJECT_NAME": ""}, 3, "OS_PROJECT_NAME is not set"),
        ({"OS_REGION_NAME": "elsewhere"}, 1, "no endpoint of the type volume in elsewhere"),
        ({"OS_AUTH_URL": f"{daemon.url}/v2.0"}, 1, "must be the URL of version 3"),
        ({"OS_AUTH_URL": f"{daemon.url}/nowhere"}, 1, "that of bootvol ends in /identity"),
        ({"OS_AUTH_URL": daemon.url}, 1, "that of bootvol ends in /identity"),
        ({"OS_AUTH_URL": f"http://127.0.0.1:{free_port()}"}, 5, "cannot be reached"),
    ):
        refused = cli("volume", "list", env={**as_ann(daemon), **changed})
        assert (refused.returncode, refused.stdout) == (code, ""), changed
        assert told in refused.stderr
    token = {"OS_TOKEN": token_of_ann(daemon), "OS_USERNAME": "", "OS_PROJECT_NAME": "other"}
    listed = cli("volume", "list", "--json", env={**as_ann(daemon), **token})
    assert json.loads(listed.stdout) == []


def test_a_name_that_several_images_have(daemon: Process) -> None:
    index = daemon.images / "index.toml"
    twice = "".join(
        f'[[images]]\nid = "{number}"\nfile = "other-{number}"\nname = "twice"\n'
        for number in (10, 11)
    )
    index.write_text(INDEX + twice)
    try:
        made = cli("volume", "create", "--image", "twice", "--size", "1", env=as_ann(daemon))
        assert made.returncode == 1
        assert "several images are called 'twice'; give the id of one: 10, 11" in made.stderr
        made = cli("volume", "create", "--image", "11", "--size", "1", env=as_ann(daemon))
        assert made.returncode == 0, made.stderr
    finally:
        index.write_text(INDEX)


def token_of_ann(daemon: Process) -> str:
    """Log in; return the token."""
    settings: dict[str, Any] = {name[3:].lower(): value for name, value in as_ann(daemon).items()}
    with openstack.connect(**settings, load_yaml_config=False) as connection:
        return str(connection.auth_token)
