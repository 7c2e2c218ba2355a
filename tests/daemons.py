"""Whole daemons for tests: in this process, on a free port, in a folder of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import orjson
from treq.client import HTTPClient
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.web.client import Agent
from twisted.web.http_headers import Headers

from bootvol import settings
from bootvol.api.sites import ApiSite
from bootvol.clocks import sleep
from bootvol.daemon import Daemon
from bootvol_plugins.file_store import STORE
from tests.servers import free_port
from tests.waiting import until

reactor: Any = _reactor

TENANT = "11692683195772"
OTHER_TENANT = "22222222222222"

_CONFIG = """\
{top}
[api]
listen = ["tcp:{port}:interface=127.0.0.1"]
{api}

[state]
{state}

{identity}

{first}

[[backends]]
name = "local"
plugin = "file"
directory = "volumes"
{backend}

[[sources]]
name = "images"
plugin = "directory"
directory = "images"

{more}
"""


#: The callers, by tokens that never change.
STATIC = """\
[[identity.tokens]]
token = "ann"
tenant = "11692683195772"
user = "ann"

[[identity.tokens]]
token = "root"
tenant = "11692683195772"
user = "root"
roles = ["admin"]

[[identity.tokens]]
token = "bob"
tenant = "22222222222222"
user = "bob"
"""

#: The path of each kind of object.
_PATHS = {"volume": "os-volumes", "snapshot": "os-snapshots", "server": "servers"}

#: The state of a single daemon.
EMBEDDED = 'url = "sqlite:///bootvol.db"\ndirectory = "."'


def configuration(
    port: int,
    more: str = "",
    state: str = EMBEDDED,
    backend: str = "",
    first: str = "",
    identity: str = STATIC,
    top: str = "",
    api: str = "",
) -> str:
    """Return a daemon's configuration.

    :param more: TOML after the basic configuration.
    :param state: TOML of the table ``[state]``.
    :param backend: TOML to add to the table of the daemon's backend.
    :param first: TOML of another backend, which becomes the default for new volumes.
    :param identity: TOML of the table ``[identity]``.
    :param top: TOML before all tables.
    :param api: TOML to add to the table ``[api]``.
    """
    return _CONFIG.format(
        port=port,
        more=more,
        state=state,
        backend=backend,
        first=first,
        identity=identity,
        top=top,
        api=api,
    )


@attrs.frozen
class Answer:
    """The answer to a request."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, which must be JSON."""
        assert self.headers["content-type"] == "application/json; charset=UTF-8"
        return orjson.loads(self.body)


class Running:
    """A daemon in this process, and a client of the daemon.

    :param folder: the folder of its state, volumes and images.
    :param more: TOML after the basic configuration.
    :param state: TOML of the table ``[state]``.
    :param backend: TOML to add to the table of the daemon's backend.
    :param first: TOML of another backend, which becomes the default for new volumes.
    :param identity: TOML of the table ``[identity]``.
    :param api: TOML to add to the table ``[api]``.
    """

    def __init__(
        self,
        folder: Path,
        more: str = "",
        state: str = EMBEDDED,
        backend: str = "",
        first: str = "",
        identity: str = STATIC,
        api: str = "",
    ) -> None:
        self.folder = folder
        self.images = folder / "images"
        self.volumes = folder / "volumes"
        self.images.mkdir(exist_ok=True)
        self.port = free_port()
        self.config = folder / f"{self.port}.conf"
        self.config.write_text(
            configuration(self.port, more, state, backend, first, identity, api=api)
        )
        self._stopped = False
        self._daemon = Daemon(settings.load(self.config), reactor)
        self._daemon.startService()

    @property
    def site(self) -> ApiSite:
        """The site that makes the API's connections."""
        return self._daemon.site

    async def stop(self) -> None:
        """Stop the daemon as SIGTERM does. Later calls do nothing."""
        if not self._stopped:
            self._stopped = True
            await self._daemon.stopService()

    async def reload(self) -> None:
        """Reload the configuration as SIGHUP does."""
        await self._daemon.reload()

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        token: str | None = "ann",
        headers: dict[str, str] | None = None,
        address: str = "127.0.0.1",
    ) -> Answer:
        """Send a request.

        :param path: an absolute path.
        :param body: bytes to send as they are; any other body is sent as JSON.
        :param address: the client's address, on loopback.
        """
        sent = Headers({k: [v] for k, v in (headers or {}).items()})
        if token is not None:
            sent.setRawHeaders("X-Auth-Token", [token])
        if body is not None and not isinstance(body, bytes):
            body = orjson.dumps(body)
        if body is not None and not sent.hasHeader("Content-Type"):
            sent.setRawHeaders("Content-Type", ["application/json"])
        response = await HTTPClient(Agent(reactor, bindAddress=(address, 0))).request(
            method, f"http://127.0.0.1:{self.port}{path}", data=body, headers=sent
        )
        content = await response.content()
        shown = {
            name.decode().lower(): values[0].decode()
            for name, values in response.headers.getAllRawHeaders()
        }
        return Answer(response.code, shown, content)

    async def call(self, method: str, path: str, body: Any = None, token: str = "ann") -> Answer:
        """Do as :meth:`request`, with ``path`` relative to the tenant's base URI."""
        return await self.request(method, f"/v1.1/{TENANT}/{path}", body, token)

    async def create(self, image: str | None = None, size: int = 1) -> int:
        """Create a volume, and return its id."""
        answer = await self.call(
            "POST", "os-volumes", {"volume": {"size": size, "imageRef": image}}
        )
        assert answer.status == 200, answer
        number: int = answer.json["volume"]["id"]
        return number

    async def snapshot(self, volume: int, **more: Any) -> int:
        """Make a snapshot of a volume, and return its id."""
        wanted = {"snapshot": {"volume_id": volume, **more}}
        answer = await self.call("POST", "os-snapshots", wanted)
        assert answer.status == 200, answer
        number: int = answer.json["snapshot"]["id"]
        return number

    async def status(self, number: int, kind: str = "volume") -> str:
        """Return the status of a volume or another ``kind``; "gone" if the object is missing."""
        answer = await self.call("GET", f"{_PATHS[kind]}/{number}")
        return "gone" if answer.status == 404 else str(answer.json[kind]["status"])

    async def progress(self, volume: int) -> Any:
        """Return the progress of a volume's import."""
        return (await self.call("GET", f"hp-bootable-volumes/{volume}/import")).json["import"]

    async def until(self, number: int, *wanted: str, kind: str = "volume") -> str:
        """Wait until a volume or another ``kind`` has one of the statuses; return the status."""
        return await until(lambda: self.status(number, kind), lambda found: found in wanted)

    def files(self) -> list[Path]:
        """Return the files of all volumes."""
        return volumes_in(self.volumes)


def volumes_in(folder: Path) -> list[Path]:
    """Return the files of all volumes in a backend's folder."""
    found = sorted(folder.iterdir()) if folder.exists() else []
    return [each for each in found if each.name != STORE]


def pause(seconds: float) -> Deferred[None]:
    """Return a Deferred that fires after some seconds."""
    return sleep(reactor, seconds)
