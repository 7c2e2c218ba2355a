"""Every answer of a daemon follows its description, for any request."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import Case
from schemathesis.checks import CHECKS

from bootvol.api.nova.dialect import description
from bootvol.testing.backends import noise
from tests.daemons import TENANT
from tests.hypervisors import MEMORY, installed
from tests.processes import Process, process
from tests.waiting import LIMIT, block_until

API = schemathesis.openapi.from_dict(description())
#: 501 and 503 are declared where possible, so the declared statuses count.
HELD: Any = CHECKS.get_by_names(
    ["status_code_conformance", "content_type_conformance", "response_schema_conformance"]
)
CONFIG = f"""
{MEMORY}
[quota]
volumes = -1
gigabytes = -1
snapshots = -1
instances = -1
"""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A daemon with an image, an admin's token, and servers in memory."""
    folder = tmp_path_factory.mktemp("daemon")
    (folder / "images").mkdir()
    (folder / "images" / "disk.raw").write_bytes(noise(1000))
    with process(folder, CONFIG, installed(folder)) as daemon:
        yield daemon


class Things:
    """Objects for requests to name: one set for all reading calls, one for each other call."""

    def __init__(self, daemon: Process) -> None:
        self._daemon = daemon
        self._made: dict[str, dict[str, Any]] = {}

    def of(self, case: Case[Any]) -> dict[str, Any]:
        """Return the objects for a case, by their names in paths and bodies."""
        reads = case.operation.method.upper() == "GET"
        user = "" if reads else case.operation.label
        if user not in self._made:
            self._made[user] = make(self._daemon)
        made = self._made[user]
        is_attachment = "os-volume_attachments" in case.operation.path
        return {**made, "volume_id": made["attached"]} if is_attachment else made


@pytest.fixture(scope="module")
def things(daemon: Process) -> Things:
    """The objects for requests to name."""
    return Things(daemon)


def make(daemon: Process) -> dict[str, Any]:
    """Make one object of each kind; return their names."""

    def new(path: str, entity: str, **wanted: Any) -> Any:
        return daemon.call("POST", path, {entity: wanted})[entity]

    name = f"type-{time.monotonic_ns()}"
    kind = new("os-volume-types", "volume_type", name=name, extra_specs={"speed": "1"})
    booted, attached, volume = (daemon.create("disk.raw") for _ in range(3))
    daemon.until_settled()
    snapshot = new("os-snapshots", "snapshot", volume_id=volume)["id"]
    mapping = [{"device_name": "vda", "volume_id": booted}]
    server = new("servers", "server", name="x", flavorRef="100", block_device_mapping=mapping)["id"]
    block_until(lambda: daemon.get(f"servers/{server}")["server"]["status"] == "ACTIVE")
    new(f"servers/{server}/os-volume_attachments", "volumeAttachment", volumeId=attached)
    daemon.until_settled()
    return {
        "volume_id": volume,
        "volumeId": volume,
        "attached": attached,
        "snapshot_id": snapshot,
        "server_id": str(server),
        "type_id": kind["id"],
        "volume_type": name,
        "imageRef": "disk.raw",
        "flavorRef": "100",
        "flavor_id": "100",
        "device_name": "vda",
        "device": "/dev/vdx",
        "availability_zone": "nova",
        "of_tenant": TENANT,
        "alias": "os-volumes",
        "key": "speed",
    }


def aimed(value: Any, things: dict[str, Any], name: str = "") -> Any:
    """Return a value with likely ids, and most other names, replaced by names of objects."""
    if isinstance(value, dict):
        return {key: aimed(each, things, key) for key, each in value.items()}
    if isinstance(value, list):
        return [aimed(each, things) for each in value]
    named = str(value).isdecimal() or zlib.crc32(repr(value).encode()) % 3
    return things[name] if name in things and value is not None and named else value


@API.parametrize()
@settings(
    max_examples=6,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_as_described(case: Case[Any], daemon: Process, things: Things) -> None:
    if case.path_parameters:
        known = things.of(case)
        case.path_parameters = {**aimed(case.path_parameters, known), "tenant": TENANT}
        case.body = aimed(case.body, known)
    answer = case.call_and_validate(
        base_url=daemon.url, headers={"X-Auth-Token": "root"}, checks=HELD, timeout=LIMIT
    )
    # 500 is described, but no request may cause one.
    assert answer.status_code != 500


@pytest.mark.parametrize(
    ("method", "path"),
    [(method, path) for path, methods in API.raw_schema["paths"].items() for method in methods],
)
def test_nothing_but_documents_is_shown_without_a_token(
    method: str, path: str, daemon: Process
) -> None:
    url = daemon.url + path.replace("{tenant}", TENANT).translate({ord("{"): None, ord("}"): None})
    answer = requests.request(method, url, json={}, timeout=LIMIT)
    assert answer.status_code == (401 if "{tenant}" in path else 200)
