"""Clients of Nova, old and new, with servers of QEMU: the statements of docs/clients.md."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import requests

from tests.daemons import TENANT
from tests.people import PASSWORD, PEOPLE
from tests.processes import Process, process
from tests.system.test_servers import HOSTING
from tests.waiting import LIMIT, LONG_LIMIT, block_until

ROOT = Path(__file__).parents[2]
V2 = {"OS_AUTH_URL": "{url}/v2.0/", "OS_TENANT_NAME": "demo"}
V3 = {
    "OS_AUTH_URL": "{url}/identity/v3",
    "OS_PROJECT_NAME": "demo",
    "OS_USER_DOMAIN_ID": "default",
    "OS_PROJECT_DOMAIN_ID": "default",
    "OS_IDENTITY_API_VERSION": "3",
}
DISK = "source=image,id=linux,dest=volume,size=1,bootindex=0,shutdown=remove"
BLOCK = (
    "source_type=image,uuid=linux,destination_type=volume,volume_size=1,boot_index=0,"
    "delete_on_termination=true"
)


@attrs.frozen
class Client:
    """A client's program, with its credentials and endpoint.

    :ivar version: the version in the document's table.
    :ivar venv: the folder of the client, installed by ``make test``.
    """

    program: str
    version: str
    venv: str
    settings: dict[str, str]

    def run(self, daemon: Process, *arguments: str) -> str:
        """Run the client; return its output."""
        told = {name: value.format(url=daemon.url) for name, value in self.settings.items()}
        done = subprocess.run(
            [ROOT / self.venv / "bin" / self.program, *arguments],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(daemon.folder),
                "LC_ALL": "C.UTF-8",
                "OS_USERNAME": "ann",
                "OS_PASSWORD": PASSWORD,
                **told,
            },
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


CLIENTS = [
    Client("nova", "6.0.2 (2016)", ".venv-clients-old", V2),
    Client("nova", "newest", ".venv-clients", V3),
    Client("openstack", "newest", ".venv-clients", V3),
]
#: The same actions in the words of each program; ``{s}`` is the server, ``{v}`` a volume.
WORDS = {
    "nova": {
        "key": "keypair-add key-of-{s}",
        "keys": "keypair-list",
        "boot": f"boot --flavor 100 --key-name key-of-{{s}} --block-device {DISK} {{s}}",
        "list": "list",
        "show": "show {s}",
        "attach": "volume-attach {s} {v}",
        "detach": "volume-detach {s} {v}",
        "stop": "stop {s}",
        "start": "start {s}",
        "delete": "delete {s}",
    },
    "openstack": {
        "key": "keypair create key-of-{s}",
        "keys": "keypair list",
        "boot": f"server create --flavor 100 --key-name key-of-{{s}} --block-device {BLOCK} {{s}}",
        "list": "server list",
        "show": "server show {s}",
        "attach": "server add volume {s} {v}",
        "detach": "server remove volume {s} {v}",
        "stop": "server stop {s}",
        "start": "server start {s}",
        "delete": "server delete {s}",
    },
}


@attrs.frozen
class Library:
    """A library, and a script for the document's tour.

    :ivar version: the version in the document's table.
    :ivar command: runs the script; the daemon's URL and the password follow, then ``more``.
    """

    name: str
    version: str
    command: tuple[str | Path, ...]
    more: tuple[str, ...] = ()


SCRIPTS = ROOT / "tests" / "clients"
LIBRARIES = [
    Library(
        "openstacksdk", "newest", (ROOT / ".venv-clients" / "bin" / "python", SCRIPTS / "sdk.py")
    ),
    Library(
        "libcloud",
        "1.1 (2016)",
        (ROOT / ".venv-clients-old" / "bin" / "python", SCRIPTS / "nodes.py"),
        ("2",),
    ),
    Library(
        "libcloud",
        "newest",
        (ROOT / ".venv-clients" / "bin" / "python", SCRIPTS / "nodes.py"),
        ("3",),
    ),
    Library("fog-openstack", "Debian's", ("ruby", SCRIPTS / "fog.rb")),
    Library("gophercloud", "Debian's", ("go", "run", SCRIPTS / "gophercloud.go")),
]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, guest_image: Path) -> Iterator[Process]:
    """A daemon with log-ins, the image of a guest, and servers of QEMU."""
    folder = tmp_path_factory.mktemp("daemon")
    (folder / "images").mkdir()
    shutil.copy(guest_image, folder / "images" / "linux")
    with process(folder, HOSTING, identity=PEOPLE) as daemon:
        yield daemon


@pytest.mark.parametrize("client", CLIENTS, ids=lambda each: f"{each.program} {each.version}")
def test_a_client_has_a_server_with_a_volume(daemon: Process, client: Client) -> None:
    words, server = WORDS[client.program], f"server-{CLIENTS.index(client)}"

    def do(what: str, volume: str = "") -> str:
        filled = words[what].format(s=server, v=volume)
        return client.run(daemon, *filled.split(" "))

    assert "PRIVATE KEY" in do("key")
    assert f"key-of-{server}" in do("keys")
    do("boot")
    block_until(lambda: re.search(rf"{server} +\| ACTIVE", do("list")) is not None)
    assert "linux" not in do("show")
    other = new_volume(client, daemon)
    do("attach", other)
    block_until(lambda: other in attached(do("show")))
    do("detach", other)
    block_until(lambda: other not in attached(do("show")))
    do("stop")
    block_until(lambda: "SHUTOFF" in do("show"))
    do("start")
    block_until(lambda: "ACTIVE" in do("show"))
    do("delete")
    block_until(lambda: server not in do("list"))


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda each: f"{each.name} {each.version}")
def test_a_library_has_a_server_with_a_volume(daemon: Process, library: Library) -> None:
    done = subprocess.run(
        [*library.command, daemon.url, PASSWORD, *library.more],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(daemon.folder),
            "LC_ALL": "C.UTF-8",
            "LIMIT": str(LIMIT),
            # Debian's packages for Go lie here; the packages are no modules.
            "GO111MODULE": "off",
            "GOPATH": "/usr/share/gocode",
        },
        capture_output=True,
        text=True,
        timeout=LONG_LIMIT,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def attached(shown: str) -> list[str]:
    """Return the volumes of a shown server."""
    lines = shown.splitlines()
    first = next(n for n, line in enumerate(lines) if "volumes_attached" in line)
    # openstack prints one line for each.
    return re.findall(r"""id["']?[:=] ?["']?([0-9a-f-]+)""", "".join(lines[first:]))


def new_volume(client: Client, daemon: Process) -> str:
    """Make a volume; return the id in the client's form."""
    credentials = {"username": "ann", "password": PASSWORD}
    body: Any = {"auth": {"passwordCredentials": credentials, "tenantName": "demo"}}
    login = requests.post(f"{daemon.url}/v2.0/tokens", json=body, timeout=LIMIT).json()
    headers = {"X-Auth-Token": login["access"]["token"]["id"]}
    base = "v1.1" if client.settings is V2 else "v2"
    url = f"{daemon.url}/{base}/{TENANT}/os-volumes"
    made = requests.post(url, json={"volume": {"size": 1}}, headers=headers, timeout=LIMIT).json()
    number = made["volume"]["id"]
    block_until(
        lambda: requests.get(f"{url}/{number}", headers=headers, timeout=LIMIT).json()["volume"],
        lambda volume: volume["status"] == "available",
    )
    return str(number)


def test_the_document_names_the_clients_that_are_run() -> None:
    text = (ROOT / "docs" / "clients.md").read_text()
    rows = re.findall(r"^\| ([a-z-]+) \| ([^|]+?) \| `", text, re.MULTILINE)
    assert rows == [
        *((each.program, each.version) for each in CLIENTS),
        *((each.name, each.version) for each in LIBRARIES),
    ]
