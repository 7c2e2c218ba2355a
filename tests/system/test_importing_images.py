"""Today's clients import and share images, and downloads outlive a daemon that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from bootvol.testing.backends import noise
from tests.commands import CLIENTS, Client, environment
from tests.commands import client as commands
from tests.daemons import OTHER_TENANT, TENANT, configuration
from tests.people import BOBS, PASSWORD, PEOPLE
from tests.processes import Process, cli, process
from tests.stored_images import LIST, MIB
from tests.waiting import LIMIT, block_until

CONTENT = noise(2 * MIB + 512)
CONFIG = """
writable = true
quota_gib = 1

[[sources]]
name = "web"
plugin = "http"
allow = ["{url}"]
bandwidth_mib = {mib}
"""


class Quiet(SimpleHTTPRequestHandler):
    """A handler that logs nothing."""

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Log nothing."""

    def log_error(self, *_arguments: object) -> None:
        """Log nothing."""


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A web server with an image; the URL ends with a slash."""
    folder = tmp_path_factory.mktemp("web")
    (folder / "disk.raw").write_bytes(CONTENT)
    (folder / "page.html").write_bytes(b"<!DOCTYPE html><html>" + b"x" * 9000)
    handler = partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, web: str) -> Iterator[Process]:
    """A daemon with log-ins that takes images, and downloads them."""
    config = CONFIG.format(url=web, mib=100)
    with process(tmp_path_factory.mktemp("daemon"), config, identity=PEOPLE) as daemon:
        yield daemon


class Images:
    """The command lines of OpenStack's clients.

    :param run: runs a program of a user in a process for all commands of the module.
    """

    def __init__(self, run: Callable[[str, str], Client]) -> None:
        self._client = run

    def run(self, program: str, *arguments: str, user: str = "ann") -> tuple[int, str, str]:
        """Run a client as Ann in the project demo, or as Bob in the project other.

        Return the exit code, the output and the errors.
        """
        return self._client(program, user).run("", *arguments)

    def image(self, *arguments: str, user: str = "ann") -> str:
        """Run `openstack image`; return its output."""
        return self._client("openstack", user)("image", *arguments)

    def glance(self, *arguments: str, user: str = "ann") -> str:
        """Run `glance`; return its output."""
        return self._client("glance", user)("", *arguments)

    def shown(self, image: str) -> Any:
        """Return the description of an image."""
        return json.loads(self.image("show", "-f", "json", image))

    def new(self, name: str, *more: str) -> str:
        """Create an image without data; return its id."""
        formats = ("--disk-format", "raw", "--container-format", "bare")
        return str(json.loads(self.image("create", *formats, *more, "-f", "json", name))["id"])


@pytest.fixture(scope="module")
def client(daemon: Process) -> Iterator[Images]:
    """The clients of the daemon."""
    bob = {"OS_USERNAME": "bob", "OS_PASSWORD": BOBS, "OS_PROJECT_NAME": "other"}
    with ExitStack() as stack:

        @cache
        def run(program: str, user: str) -> Client:
            # Without a version in the URL, the clients ask which versions there are.
            more = {"OS_AUTH_URL": f"{daemon.url}/identity", **({} if user == "ann" else bob)}
            settings = environment(daemon.url, daemon.folder, more)
            return stack.enter_context(commands(program, settings, terminal=True))

        yield Images(run)


def test_openstack_imports(client: Images, web: str, tmp_path: Path) -> None:
    assert "glance-direct, web-download" in client.image("import", "info")
    assert "| images |" in client.image("stores", "list")
    image = client.new("of the web")
    client.image("import", "--method", "web-download", "--uri", f"{web}disk.raw", image)
    found = block_until(lambda: client.shown(image), lambda each: each["status"] == "active")
    assert (found["size"], found["virtual_size"]) == (len(CONTENT), len(CONTENT))
    saved = tmp_path / "saved"
    client.image("save", "--file", str(saved), image)
    assert saved.read_bytes() == CONTENT
    failing = client.new("failing")
    for url, told in (
        ("http://169.254.169.254/latest", "the operator does not allow the URL"),
        (f"{web}page.html", "page, not a disk"),
    ):
        client.image("import", "--method", "web-download", "--uri", url, failing)
        block_until(
            lambda: client.shown(failing)["properties"]["os_glance_importing_to_stores"],
            lambda stores: not stores,
        )
        listed = client.image("task", "list", "--status", "failure", "-f", "json")
        (task,) = json.loads(listed)
        shown = json.loads(client.image("task", "show", task["ID"], "-f", "json"))
        assert told in shown["message"]
        assert client.shown(failing)["status"] == "queued"


def test_openstack_stages(client: Images, tmp_path: Path) -> None:
    path = tmp_path / "disk.raw"
    path.write_bytes(CONTENT)
    image = client.new("staged")
    client.image("stage", "--file", str(path), image)
    assert client.shown(image)["status"] == "uploading"
    client.image("import", "--method", "glance-direct", image)
    assert client.shown(image)["status"] == "active"
    made = client.image(
        *("create", "--import", "--file", str(path), "--disk-format", "raw"),
        *("-f", "value", "-c", "status", "at once"),
    )
    assert made == "active\n"


def test_openstack_shares(client: Images) -> None:
    image = client.new("shared")
    client.image("add", "project", image, OTHER_TENANT)
    listed = partial(client.image, "list", "-f", "value", "-c", "ID", user="bob")
    assert image not in listed()
    assert image in listed("--shared", "--member-status", "pending")
    client.image("set", "--accept", image, user="bob")
    assert image in listed()
    assert "accepted" in client.image("member", "list", image)
    client.image("set", "--reject", image, user="bob")
    assert image not in listed()
    client.image("remove", "project", image, OTHER_TENANT)
    assert client.run("openstack", "image", "show", image, user="bob")[0] == 1


def test_openstack_deactivates(client: Images, web: str) -> None:
    image = client.new("old", "--community")
    client.image("import", "--method", "web-download", "--uri", f"{web}disk.raw", image)
    block_until(lambda: client.shown(image)["status"], lambda status: status == "active")
    client.image("set", "--deactivate", image)
    assert client.shown(image)["status"] == "deactivated"
    assert client.run("openstack", "image", "save", image)[0] == 1
    client.image("set", "--activate", image)
    assert image in client.image("list", "--community", user="bob")


def test_glanceclient(client: Images, web: str, tmp_path: Path) -> None:
    path = tmp_path / "disk.raw"
    path.write_bytes(CONTENT)
    formats = ("--disk-format", "raw", "--container-format", "bare")
    for way, name in (
        (("web-download", "--uri", f"{web}disk.raw"), "glance of the web"),
        (("glance-direct", "--file", str(path)), "glance of a file"),
    ):
        client.glance("image-create-via-import", "--name", name, *formats, "--import-method", *way)
        found = block_until(partial(client.shown, name), lambda each: each["status"] == "active")
        assert "success" in client.glance("image-tasks", found["id"])
    image = found["id"]
    client.glance("member-create", image, OTHER_TENANT)
    client.glance("member-update", image, OTHER_TENANT, "accepted", user="bob")
    assert "accepted" in client.glance("member-list", "--image-id", image)
    client.glance("member-delete", image, OTHER_TENANT)
    client.glance("image-deactivate", image)
    client.glance("image-reactivate", image)
    client.glance("image-update", "--property", "a=b", "--visibility", "private", image)
    assert client.shown(image)["visibility"] == "private"
    client.glance("stores-info")
    client.glance("image-delete", image)


def test_the_cloud_of_a_user(daemon: Process, tmp_path: Path) -> None:
    """`openstack` needs nothing but the printed file and the password."""
    command = ("user", "show-cloud", "--config", str(daemon.config))
    printed = cli(*command, "ann")
    assert printed.returncode == 0, printed.stderr
    (tmp_path / "clouds.yaml").write_text(printed.stdout)
    for cloud, project in (("demo", TENANT), ("other", OTHER_TENANT)):
        done = subprocess.run(
            [CLIENTS / "openstack", "token", "issue", "-f", "value", "-c", "project_id"],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(tmp_path),
                "OS_CLIENT_CONFIG_FILE": str(tmp_path / "clouds.yaml"),
                "OS_CLOUD": cloud,
                "OS_PASSWORD": PASSWORD,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT,
        )
        assert (done.returncode, done.stdout) == (0, f"{project}\n"), done.stderr
    elsewhere = cli(*command, "--url", "https://volumes.example.com/", "bob").stdout
    assert 'auth_url: "https://volumes.example.com/identity/v3"' in elsewhere
    unknown = cli(*command, "nobody")
    assert (unknown.returncode, unknown.stdout) == (4, "")
    assert "there is no user nobody with a password" in unknown.stderr


def test_users_of_tokens_have_no_cloud(tmp_path: Path) -> None:
    config = tmp_path / "twistd.conf"
    config.touch(mode=0o600)
    config.write_text(configuration(1))
    done = cli("user", "show-cloud", "--config", str(config), "ann")
    assert (done.returncode, done.stdout) == (1, "")
    assert "users log in elsewhere" in done.stderr


def test_a_daemon_that_is_killed_during_a_download(tmp_path: Path, web: str) -> None:
    """The image is importing until another start of the daemon, which leaves no other file."""
    with process(tmp_path, CONFIG.format(url=web, mib=0.5)) as daemon:
        send = partial(daemon.call, token="ann")
        body = {"disk_format": "raw", "container_format": "bare"}
        image = send("POST", LIST, body)["id"]
        method = {"method": {"name": "web-download", "uri": f"{web}disk.raw"}}
        send("POST", f"{LIST}/{image}/import", method)
        folder = daemon.images / ".bootvol-images"
        part = folder / f"{image}.part"
        block_until(lambda: part.exists() and part.stat().st_size)
        daemon.stop(signal.SIGKILL)
        assert part.exists()
        daemon.start()

        def status() -> str:
            return str(send("GET", f"{LIST}/{image}")["status"])

        assert status() in {"importing", "active"}
        block_until(status, lambda found: found == "active")
        assert (folder / f"{image}.disk").read_bytes() == CONTENT
        assert not part.exists()
        block_until(
            lambda: send("GET", f"{LIST}/{image}/tasks")["tasks"],
            lambda found: [each["status"] for each in found] == ["success"],
        )
        daemon.stop(signal.SIGKILL)
        daemon.start()
        assert status() == "active"


def test_two_daemons_share_the_downloads(tmp_path: Path, web: str) -> None:
    """The other daemon takes over when the first one is killed, and no image comes twice."""
    config = CONFIG.format(url=web, mib=0.5)
    with process(tmp_path, config) as first:
        other = tmp_path / "other"
        other.mkdir()
        (other / "images").symlink_to(first.images, target_is_directory=True)
        with process(other, config) as second:
            send = partial(second.call, token="ann")
            body = {"disk_format": "raw", "container_format": "bare"}
            images = [first.call("POST", LIST, body, "ann")["id"] for _ in range(3)]
            method = {"method": {"name": "web-download", "uri": f"{web}disk.raw"}}
            for each in images:
                first.call("POST", f"{LIST}/{each}/import", method, "ann")
            folder = first.images / ".bootvol-images"
            block_until(lambda: list(folder.glob("*.part")))
            first.stop(signal.SIGKILL)

            def statuses() -> set[str]:
                return {send("GET", f"{LIST}/{each}")["status"] for each in images}

            block_until(statuses, lambda found: found == {"active"})
            for each in images:
                assert (folder / f"{each}.disk").read_bytes() == CONTENT
            assert not list(folder.glob("*.part"))
