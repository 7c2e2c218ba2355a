"""Attachments for ``openstack``, and under kills of the daemon."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor, wait
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import attrs
import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread

from tests.cinder import OF_NOVA
from tests.cinder import PEOPLE as STATIC_PEOPLE
from tests.commands import client, environment
from tests.daemons import Running
from tests.people import PEOPLE
from tests.processes import Process
from tests.system.test_block_storage_clients import OpenStack
from tests.waiting import block_until

SERVER = "aaaaaaaa-0000-4000-8000-000000000001"


@attrs.frozen
class Place:
    """The place of a daemon in this process."""

    url: str
    folder: Path


class Compute(BaseHTTPRequestHandler):
    """Stands for Nova, which knows one server: ``openstack`` looks for the server first."""

    def do_GET(self) -> None:
        """Answer with the version, or with the server."""
        here = f"http://{self.headers['Host']}/v2.1/"
        version = {"id": "v2.1", "status": "CURRENT", "version": "2.96", "min_version": "2.1"}
        known = {
            "/v2.1": {"version": {**version, "links": [{"rel": "self", "href": here}]}},
            f"/v2.1/servers/{SERVER}": {"server": {"id": SERVER, "name": "web"}},
        }
        found = known.get(self.path.rstrip("/"))
        body = json.dumps(found or {"itemNotFound": {"code": 404, "message": "-"}}).encode()
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Write no log."""


@pytest_twisted.async_yield_fixture
async def openstack(tmp_path: Path) -> AsyncIterator[OpenStack]:
    """The client of a daemon, and of a stand-in for Nova."""
    daemon = Running(tmp_path, identity=PEOPLE)
    compute = ThreadingHTTPServer(("127.0.0.1", 0), Compute)
    serving = Thread(target=compute.serve_forever)
    serving.start()
    place = f"http://127.0.0.1:{compute.server_port}/v2.1"
    url = f"http://127.0.0.1:{daemon.port}"
    settings = environment(url, tmp_path, {"OS_COMPUTE_ENDPOINT_OVERRIDE": place})
    with client("openstack", settings) as ran:
        yield OpenStack(Place(url, tmp_path), ran)
    compute.shutdown()
    serving.join()
    compute.server_close()
    await daemon.stop()


@ensureDeferred
async def test_the_commands_of_attachments(openstack: OpenStack) -> None:
    await deferToThread(commands, openstack)


def commands(openstack: OpenStack) -> None:
    """Attach and detach a volume by commands."""
    openstack("volume", "create", "--size", "1", "data")
    volume = openstack.available(("volume",), "data")["id"]
    version = ("--os-volume-api-version", "3.71")
    attachment = (*version, "volume", "attachment")

    def status() -> str:
        return str(openstack.json("volume", "show", "data")["status"])

    made = openstack.json(*attachment, "create", "--server", SERVER, "--mode", "ro", "data")
    assert (made["Status"], made["Volume ID"], status()) == ("reserved", volume, "reserved")
    assert made["Instance ID"] == SERVER
    told = openstack.json(
        *attachment, "set", "--host", "h1", "--ip", "10.0.0.1", "--mountpoint", "/dev/vdb",
        made["ID"],
    )  # fmt: skip
    assert told["Properties"]["driver_volume_type"] == "local"
    assert (told["Properties"]["access_mode"], status()) == ("ro", "attaching")
    openstack(*attachment, "complete", made["ID"])
    assert status() == "in-use"
    (listed,) = openstack.json(*attachment, "list", "--volume-id", volume, "--status", "attached")
    assert (listed["ID"], listed["Status"]) == (made["ID"], "attached")
    assert openstack.json(*attachment, "list", "--status", "reserved") == []
    shown = openstack.json(*attachment, "show", made["ID"])
    assert (shown["Attach Mode"], shown["Status"]) == ("ro", "attached")
    # The host of the server sees the new size.
    openstack(*version, "volume", "set", "--size", "2", "data")
    block_until(status, lambda found: found == "in-use")
    assert openstack.json("volume", "show", "data")["size"] == 2
    refused = openstack.run("volume", "delete", "data")
    assert "must not be migrating, attached" in refused.stderr
    refused = openstack.run(*attachment, "delete", made["ID"])
    assert "ConflictNovaUsingAttachment" in refused.stderr
    assert status() == "in-use"
    openstack("volume", "create", "--size", "1", "other")
    openstack.available(("volume",), "other")
    other = openstack.json(*attachment, "create", "--server", SERVER, "other")
    openstack(*attachment, "delete", other["ID"])
    openstack("volume", "delete", "other")
    openstack.gone(("volume",), "other")


def test_a_kill_loses_no_hold(tmp_path: Path) -> None:
    """The daemon is killed at any moment of a call, and the client repeats the call."""
    daemon = Process(tmp_path, identity=STATIC_PEOPLE)
    headers = {"OpenStack-API-Version": "volume 3.54"}

    def ask(method: str, path: str, body: object = None) -> Any:
        return daemon.call(method, f"/volume/v3/{path}", body, "ann", headers)

    def status() -> str:
        return str(ask("GET", f"volumes/{volume}")["volume"]["status"])

    def broken(method: str, path: str, body: object) -> None:
        """Send a call, and kill the daemon meanwhile."""
        with ThreadPoolExecutor(1) as pool:
            calling = pool.submit(ask, method, path, body)
            time.sleep(random.uniform(0, 0.03))
            daemon.stop(signal.SIGKILL)
            wait([calling])
        daemon.start()

    try:
        volume = ask("POST", "volumes", {"volume": {"size": 1}})["volume"]["id"]
        block_until(status, lambda found: found == "available")
        wanted = {"attachment": {"volume_uuid": volume, "instance_uuid": SERVER}}
        connector = {"attachment": {"connector": {"host": "h1"}}}
        for _ in range(3):
            broken("POST", "attachments", wanted)
            ask("POST", "attachments", wanted)
            first, *others = ask("GET", f"attachments?volume_id={volume}")["attachments"]
            assert (len(others) < 2, status()) == (True, "reserved")
            path = f"attachments/{first['id']}"
            broken("PUT", path, connector)
            assert status() in ("reserved", "attaching")
            told = ask("PUT", path, connector)["attachment"]["connection_info"]
            assert told["driver_volume_type"] == "local"
            assert status() == "attaching"
            broken("POST", f"{path}/action", {"os-complete": None})
            assert status() in ("attaching", "in-use")
            ask("POST", f"{path}/action", {"os-complete": None})
            assert status() == "in-use"
            for each in others:
                ask("DELETE", f"attachments/{each['id']}")
            freed = {"os-detach": {"attachment_id": first["id"]}}
            daemon.call(
                "POST",
                f"/volume/v3/volumes/{volume}/action",
                freed,
                "ann",
                OF_NOVA,
            )
            assert status() == "available"
    finally:
        daemon.stop()
