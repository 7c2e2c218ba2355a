"""A real Keystone for tests, with SQLite: ready in a few seconds, and removed with the tests."""

from __future__ import annotations

import json
import shutil
import signal
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import attrs

from tests.openstack import Served, run
from tests.servers import free_port
from tests.waiting import LIMIT

#: The password of all users made by the tests.
PASSWORD: Final = "correct horse battery staple"

_APPLICATION: Final = "keystone.wsgi.api:application"
INTERFACES: Final = ("public", "internal", "admin")

_CONFIGURATION: Final = """\
[DEFAULT]
log_file = {folder}/keystone.log
[database]
connection = sqlite:///{folder}/keystone.db
[fernet_tokens]
key_repository = {folder}/fernet-keys
[fernet_receipts]
key_repository = {folder}/fernet-keys
[credential]
key_repository = {folder}/credential-keys
[identity]
password_hash_algorithm = bcrypt
password_hash_rounds = 4
[cache]
# Without it a token is validated in a quarter of a second, with it in a few milliseconds.
enabled = true
backend = dogpile.cache.memory
"""


@attrs.frozen
class Refused(Exception):
    """An answer of Keystone with an error."""

    status: int
    message: str


class Keystone:
    """A running Keystone. All methods block.

    :param folder: folder for all files.
    :ivar url: the root without a final slash; version 3 of the API is below ``/v3``.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._file = folder / "keystone.conf"
        self._env = {"OS_KEYSTONE_CONFIG_FILES": str(self._file)}
        self._served = Served(_APPLICATION, port, folder, self._env)
        self._admin = ""

    def make(self) -> None:
        """Write the files and the database with the first user, ``admin``."""
        self._file.write_text(_CONFIGURATION.format(folder=self._folder))
        owner = ("--keystone-user", self._folder.owner(), "--keystone-group", self._folder.group())
        region = [f"--bootstrap-{kind}-url={self.url}/v3" for kind in INTERFACES]
        region.append("--bootstrap-region-id=RegionOne")
        calls = [
            ["db_sync"],
            ["fernet_setup", *owner],
            ["credential_setup", *owner],
            ["bootstrap", f"--bootstrap-password={PASSWORD}", *region],
        ]
        run(
            "python",
            str(Path(__file__).with_name("manage_keystone.py")),
            *(json.dumps(["--config-file", str(self._file), *call]) for call in calls),
        )

    def start(self) -> None:
        """Start or restart Keystone; earlier tokens stay valid."""
        self._served.start(f"{self.url}/v3")

    def kill(self) -> None:
        """End Keystone at once. Idempotent."""
        self._served.kill()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Let Keystone accept connections without an answer, until the end of the block."""
        self._served.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._served.signal(signal.SIGCONT)

    @contextmanager
    def over_tls(self, certificate: Path, key: Path) -> Iterator[str]:
        """Serve Keystone over https as well, until the end of the block; the value is the URL.

        :param certificate: a certificate for localhost, with its authorities.
        """
        folder, port = Path(tempfile.mkdtemp(dir=self._folder)), free_port()
        served = Served(_APPLICATION, port, folder, self._env, tls=(certificate, key))
        url = f"https://localhost:{port}"
        try:
            served.start(f"{url}/v3")
            yield url
        finally:
            served.kill()

    def requests(self) -> list[str]:
        """Return the requests of others so far, each with method, path and status."""
        # When this request is answered, all earlier ones are listed.
        self.call("GET", "/domains/default")
        return [each for each in self._served.requests() if "/domains/" not in each]

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        token: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Any:
        """Send a request, with admin's token by default; return the JSON of the answer, or None.

        :param path: the path below ``/v3``.
        :raises Refused: if Keystone answers with an error.
        """
        sent = {**(headers or {}), "X-Auth-Token": token or self._admin_token()}
        return self._send(method, path, body, sent)[1]

    def token(
        self, user: str, project: str | None, *, password: str = PASSWORD, system: bool = False
    ) -> str:
        """Log in a user by name and password; return the token, for a project by name.

        :param project: None for a token without a project.
        :param system: request a token for Keystone itself instead of a project.
        :raises Refused: if Keystone answers with an error.
        """
        scope: Any = "unscoped"
        if system:
            scope = {"system": {"all": True}}
        elif project is not None:
            scope = {"project": {"name": project, "domain": {"id": "default"}}}
        who = {"name": user, "domain": {"id": "default"}, "password": password}
        identity = {"methods": ["password"], "password": {"user": who}}
        return self.log_in({"identity": identity, "scope": scope})

    def log_in(self, auth: Any) -> str:
        """Log in with the value of ``auth`` in the body; return the token."""
        found: str = self._send("POST", "/auth/tokens", {"auth": auth}, {})[0]["X-Subject-Token"]
        return found

    def revoke(self, token: str) -> None:
        """End a token."""
        self.call("DELETE", "/auth/tokens", headers={"X-Subject-Token": token})

    def project(self, name: str) -> str:
        """Make a project; return the id."""
        wanted = {"name": name, "domain_id": "default"}
        found: str = self.call("POST", "/projects", {"project": wanted})["project"]["id"]
        return found

    def user(self, name: str, roles: dict[str, Sequence[str]]) -> str:
        """Make a user; return the id.

        :param roles: names of the user's roles, by the ids of the projects.
        """
        wanted = {"name": name, "domain_id": "default", "password": PASSWORD}
        user: str = self.call("POST", "/users", {"user": wanted})["user"]["id"]
        for project, names in roles.items():
            for role in names:
                path = f"/projects/{project}/users/{user}/roles/{self.role(role)}"
                self.call("PUT", path)
        return user

    def application_credential(self, user: str, token: str, **more: Any) -> tuple[str, str]:
        """Make an application credential; return its id and its secret.

        :param user: id of the owner.
        :param token: a token of the owner, for the credential's project.
        :param more: other properties of the credential, for example ``expires_at``.
        """
        wanted = {"name": uuid4().hex, **more}
        path = f"/users/{user}/application_credentials"
        made = self.call("POST", path, {"application_credential": wanted}, token)
        return made["application_credential"]["id"], made["application_credential"]["secret"]

    def log_in_by_credential(self, credential: tuple[str, str]) -> str:
        """Log in with the result of :meth:`application_credential`; return the token."""
        number, secret = credential
        method = "application_credential"
        return self.log_in(
            {"identity": {"methods": [method], method: {"id": number, "secret": secret}}}
        )

    def role(self, name: str) -> str:
        """Return the id of a role; make the role if it does not exist."""
        found = self.call("GET", f"/roles?name={name}")["roles"]
        if not found:
            found = [self.call("POST", "/roles", {"role": {"name": name}})["role"]]
        number: str = found[0]["id"]
        return number

    def endpoint(self, name: str, kind: str, url: str) -> str:
        """Add a service to the catalog; return the service's id.

        :param kind: the service's type, for example ``compute``.
        :param url: may contain ``%(project_id)s``.
        """
        wanted = {"name": name, "type": kind}
        service: str = self.call("POST", "/services", {"service": wanted})["service"]["id"]
        for interface in INTERFACES:
            endpoint = {
                "service_id": service,
                "interface": interface,
                "region_id": "RegionOne",
                "url": url,
            }
            self.call("POST", "/endpoints", {"endpoint": endpoint})
        return service

    def _admin_token(self) -> str:
        self._admin = self._admin or self.token("admin", "admin")
        return self._admin

    def _send(self, method: str, path: str, body: Any, headers: dict[str, str]) -> tuple[Any, Any]:
        request = urllib.request.Request(
            f"{self.url}/v3{path}",
            None if body is None else json.dumps(body).encode(),
            {"Content-Type": "application/json", **headers},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=LIMIT) as answer:
                content = answer.read()
                return answer.headers, json.loads(content) if content else None
        except urllib.error.HTTPError as error:
            with error:
                raise Refused(error.code, error.read().decode()) from None


@contextmanager
def keystone() -> Iterator[Keystone]:
    """Run a Keystone until the end of the block. Blocks."""
    folder = Path(tempfile.mkdtemp(prefix="bootvol-keystone-"))
    made = Keystone(folder)
    try:
        made.make()
        made.start()
        yield made
    finally:
        made.kill()
        shutil.rmtree(folder)
