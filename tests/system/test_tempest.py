"""Tempest, OpenStack's own test suite of its APIs.

One daemon has users and images of its own, the other those of a Keystone and a Glance.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Final

import pytest
from argon2 import PasswordHasher

from bootvol.testing.backends import noise
from tests.openstack.identity import PASSWORD as KEYSTONES_PASSWORD
from tests.openstack.sites import SharedCloud
from tests.processes import Process, process
from tests.waiting import LIMIT, LONG_LIMIT

_SETTINGS: Final = Path(__file__).parents[1] / "tempest"
_TEMPEST: Final = Path(__file__).parents[2] / ".venv-tempest" / "bin" / "tempest"
_OPENSTACK: Final = _TEMPEST.parents[2] / ".venv-clients" / "bin" / "openstack"
#: How many tests pass at least, and how many are skipped at most. Tempest counts a class that needs
#: Nova as one skipped test.
_KNOWN: Final = {"image": (30, 22), "volume": (180, 15), "openstack": (185, 14)}
#: The most characters of tempest's output in a failure.
_TAIL: Final = 30_000
_PASSWORD: Final = "tempest's own password"
#: The projects of members. Tempest takes a project for a test's own objects, and another one to
#: look at the objects from there.
_PROJECTS: Final = ("one", "two")
_OPERATORS: Final = "operators"
_QUOTA: Final = "[quota]\nvolumes = 100\nsnapshots = 100\ngigabytes = 1000\n"
_OTHER: Final = '[[backends]]\nname = "other"\nplugin = "file"\ndirectory = "others"\n'
_WRITABLE: Final = "writable = true\nquota_gib = 10\n"
#: The embedded identity has the users of its configuration, and no calls to make more.
_OWN: Final = """\
use_dynamic_credentials = false
test_accounts_file = {folder}/accounts.yaml
"""
#: Tempest makes projects and users in Keystone.
_KEYSTONES: Final = f"""\
use_dynamic_credentials = true
admin_username = admin
admin_password = {KEYSTONES_PASSWORD}
admin_project_name = admin
admin_domain_name = Default
create_isolated_networks = false
"""


def _users() -> list[tuple[str, str, str]]:
    """Return the users: their names, projects and roles."""
    members = [
        (f"{role}-{project}", project, role)
        for project in _PROJECTS
        for role in ("member", "reader")
    ]
    return [*members, ("admin", _OPERATORS, "admin")]


def _identity() -> str:
    """Return the table ``[identity]`` of a daemon with the users."""
    password = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(_PASSWORD)
    table = ["[identity]", 'plugin = "embedded"', 'directory = "identity"']
    for number, name in enumerate((*_PROJECTS, _OPERATORS), 1):
        # Tempest wants ids of 32 hexadecimal digits.
        table += ["[[identity.projects]]", f'name = "{name}"', f'id = "{number:032x}"']
    for name, project, role in _users():
        table += ["[[identity.users]]", f'name = "{name}"', f'password_hash = "{password}"']
        table += [f'roles = {{ {project} = ["{role}"] }}']
    return "\n".join(table)


def _accounts() -> str:
    """Return the file with the users for tempest."""
    return "".join(
        f"- {{username: {name}, project_name: {project}, password: {_PASSWORD!r},"
        f" user_domain_name: Default, project_domain_name: Default, roles: [{role}]}}\n"
        for name, project, role in _users()
    )


def _image(daemon: Process) -> str:
    """Bring an image for all projects; return the image's id."""
    settings = {
        "PATH": os.environ["PATH"],
        "HOME": str(daemon.folder),
        "OS_AUTH_URL": f"{daemon.url}/identity/v3",
        "OS_USERNAME": "admin",
        "OS_PASSWORD": _PASSWORD,
        "OS_PROJECT_NAME": _OPERATORS,
        "OS_USER_DOMAIN_ID": "default",
        "OS_PROJECT_DOMAIN_ID": "default",
    }
    disk = daemon.folder / "disk"
    disk.write_bytes(noise(1024 * 1024))
    made = subprocess.run(
        [
            _OPENSTACK, "image", "create", "--file", disk, "--disk-format", "raw", "--public",
            "disk", "-f", "value", "-c", "id",
        ],
        env=settings,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


def _run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [_TEMPEST, *arguments],
        cwd=folder,
        env={"PATH": f"{_TEMPEST.parent}:{os.environ['PATH']}", "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=LONG_LIMIT,
    )


@pytest.mark.parametrize("api", ["image", "volume"])
def test_no_test_of_tempest_fails(api: str, tmp_path: Path) -> None:
    """Tempest leaves out no more than known: see tests/tempest/."""
    folder = tmp_path / "daemon"
    folder.mkdir()
    with process(folder, more=_WRITABLE + _QUOTA + _OTHER, identity=_identity()) as daemon:
        (tmp_path / "accounts.yaml").write_text(_accounts())
        url = f"{daemon.url}/identity/v3"
        settings = {
            "identity": url,
            "image": _image(daemon),
            "region": "nova",
            "auth": _OWN.format(folder=tmp_path),
        }
        _check(tmp_path, api, settings, _KNOWN[api], "excluded.txt", "excluded-embedded.txt")


class _Network(BaseHTTPRequestHandler):
    """Stands for Neutron.

    When tempest removes a project, it looks for the default security group of the project.
    """

    def do_GET(self) -> None:
        """Answer with no security groups."""
        body = b'{"security_groups": []}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Write no log."""


@pytest.fixture
def network(clients_cloud: SharedCloud) -> Iterator[None]:
    """A stand-in for Neutron in the catalog."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Network)
    serving = Thread(target=server.serve_forever)
    serving.start()
    url = f"http://127.0.0.1:{server.server_port}"
    service = clients_cloud.keystone.endpoint("neutron", "network", url)
    yield
    clients_cloud.keystone.call("DELETE", f"/services/{service}")
    server.shutdown()
    serving.join()
    server.server_close()


@pytest.mark.whole
@pytest.mark.usefixtures("network")
def test_no_test_of_volumes_fails_with_keystone(clients_cloud: SharedCloud, tmp_path: Path) -> None:
    """Tempest makes its own projects and users in a real Keystone, and images in a real Glance."""
    folder = tmp_path / "daemon"
    folder.mkdir()
    with clients_cloud.site(folder, _QUOTA + _OTHER) as site:
        settings = {
            "identity": site.settings["OS_AUTH_URL"],
            "image": site.bring("disk", noise(1024 * 1024)),
            "region": "RegionOne",
            "auth": _KEYSTONES,
        }
        _check(tmp_path, "volume", settings, _KNOWN["openstack"], "excluded.txt")


def _check(
    folder: Path, api: str, settings: dict[str, str], known: tuple[int, int], *excluded: str
) -> None:
    """Run the tests of an API.

    :param settings: the places in ``tempest.conf``.
    :param known: how many tests pass at least, and how many are skipped at most.
    :param excluded: the files with the tests to leave out.
    """
    workspace = folder / "tempest"
    made = _run(folder, "init", str(workspace))
    assert made.returncode == 0, made.stderr
    conf = (_SETTINGS / "tempest.conf").read_text().format(folder=workspace, **settings)
    (workspace / "etc" / "tempest.conf").write_text(conf)
    left_out = workspace / "excluded.txt"
    left_out.write_text("".join((_SETTINGS / name).read_text() for name in excluded))
    done = _run(
        workspace, "run", "--serial", "--exclude-list", str(left_out),
        "--regex", os.environ.get("TEMPEST_TESTS", rf"tempest\.api\.{api}\."),
    )  # fmt: skip
    found = dict(re.findall(r"^ - (Passed|Skipped|Failed): ([0-9]+)$", done.stdout, re.M))
    assert done.returncode == 0, done.stdout[-_TAIL:]
    assert int(found["Failed"]) == 0
    if "TEMPEST_TESTS" not in os.environ:
        passed, skipped = known
        assert int(found["Passed"]) >= passed, done.stdout[-_TAIL:]
        assert int(found["Skipped"]) <= skipped, done.stdout[-_TAIL:]
