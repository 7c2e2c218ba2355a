"""Volume types over a socket: every status and text, and the backends of types."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred

from tests.daemons import TENANT, Running
from tests.integration.test_faults import NOT_FOUND, fault
from tests.waiting import until

TYPES = "os-volume-types"
OTHER = '[[backends]]\nname = "fast"\nplugin = "file"\ndirectory = "fast"\n'
FORBIDDEN = (403, "resizeNotAllowed", "Access was denied to this resource.")
UNPROCESSABLE = (422, "cloudServersFault", "Unable to process the contained instructions")
UNKNOWN = (
    400,
    "badRequest",
    "The volume_backend_name slow is not configured. Use one of: local, fast.",
)


@pytest_twisted.async_yield_fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Running]:
    """A daemon with two backends."""
    daemon = Running(tmp_path, OTHER)
    yield daemon
    await daemon.stop()


async def a_type(daemon: Running, name: str = "gold", **specs: str) -> int:
    """Create a type; return the id."""
    wanted = {"volume_type": {"name": name, "extra_specs": specs}}
    answer = await daemon.call("POST", TYPES, wanted, "root")
    assert answer.status == 200, answer
    number: int = answer.json["volume_type"]["id"]
    return number


async def a_volume(daemon: Running, volume_type: str | None, **more: Any) -> Any:
    """Create a volume of a type; return the finished volume."""
    wanted = {"volume": {"size": 1, "volume_type": volume_type, **more}}
    answer = await daemon.call("POST", "os-volumes", wanted)
    assert answer.status == 200, answer
    number = answer.json["volume"]["id"]
    assert await daemon.until(number, "available", "error") == "available"
    return (await daemon.call("GET", f"os-volumes/{number}")).json["volume"]


async def a_snapshot(daemon: Running, volume: int) -> int:
    """Make a snapshot; return the id of the finished snapshot."""
    answer = await daemon.call("POST", "os-snapshots", {"snapshot": {"volume_id": volume}})
    assert answer.status == 200, answer
    number: int = answer.json["snapshot"]["id"]
    shown = await until(
        lambda: daemon.call("GET", f"os-snapshots/{number}"),
        lambda found: found.json["snapshot"]["status"] != "creating",
    )
    assert shown.json["snapshot"]["status"] == "available"
    return number


async def lies_on(daemon: Running, volume: Any) -> str:
    """Return the folder of a volume's file."""
    path = f"os-volumes/{volume['id']}/connection"
    return Path(
        (await daemon.call("GET", path, None, "root")).json["connection"]["address"]
    ).parent.name


@ensureDeferred
async def test_types_come_and_go(daemon: Running) -> None:
    assert (await daemon.call("GET", TYPES)).json == {"volume_types": []}
    wanted = {"volume_type": {"name": "gold", "extra_specs": {"a": "1"}, "id": 7}}
    made = await daemon.call("POST", TYPES, wanted, "root")
    shown = {"id": 1, "name": "gold", "extra_specs": {"a": "1"}}
    assert (made.status, made.json) == (200, {"volume_type": shown})
    await a_type(daemon, "plain")
    # Every role may read.
    assert (await daemon.call("GET", f"{TYPES}/1")).json == {"volume_type": shown}
    listed = (await daemon.call("GET", TYPES)).json["volume_types"]
    assert listed == [shown, {"id": 2, "name": "plain", "extra_specs": {}}]
    gone = await daemon.call("DELETE", f"{TYPES}/1", None, "root")
    assert (gone.status, gone.body) == (200, b"")
    assert fault(await daemon.call("GET", f"{TYPES}/1")) == NOT_FOUND
    assert await a_type(daemon) == 3, "ids are never given again"


@ensureDeferred
async def test_extra_specs(daemon: Running) -> None:
    base = f"{TYPES}/{await a_type(daemon, a='1')}/extra_specs"
    added = await daemon.call("POST", base, {"extra_specs": {"b": "2", "a": "3"}}, "root")
    assert (added.status, added.json) == (200, {"extra_specs": {"b": "2", "a": "3"}})
    assert (await daemon.call("POST", base, {"extra_specs": {}}, "root")).status == 200
    put = await daemon.call("PUT", f"{base}/c", {"c": "ü"}, "root")
    assert (put.status, put.json) == (200, {"c": "ü"})
    assert (await daemon.call("GET", base)).json == {"extra_specs": {"a": "3", "b": "2", "c": "ü"}}
    assert (await daemon.call("GET", f"{base}/b")).json == {"b": "2"}
    gone = await daemon.call("DELETE", f"{base}/b", None, "root")
    assert (gone.status, gone.body) == (200, b"")
    assert (await daemon.call("GET", base)).json == {"extra_specs": {"a": "3", "c": "ü"}}


NAMELESS: list[Any] = [
    {},
    {"volume_type": None},
    {"volume_type": {}},
    {"volume_type": ""},
    {"volume_type": {"name": ""}},
    {"volume_type": {"name": None}},
    {"volume_type": {"extra_specs": {}}},
]
WRONG: list[tuple[str, str, Any, tuple[int, str, str]]] = [
    *(("POST", "", body, UNPROCESSABLE) for body in NAMELESS),
    (
        "POST",
        "",
        {"volume_type": {"name": "gold"}},
        (409, "inProgress", "Volume Type gold already exists."),
    ),
    (
        "POST",
        "",
        {"volume_type": {"name": 7}},
        (400, "badRequest", "Invalid input received for name: Input should be a valid string"),
    ),
    (
        "POST",
        "",
        {"volume_type": {"name": "x\0"}},
        (400, "badRequest", "Invalid input received: text must not contain a null character"),
    ),
    (
        "POST",
        "",
        {"volume_type": {"name": "x", "extra_specs": {"volume_backend_name": "slow"}}},
        UNKNOWN,
    ),
    ("POST", "/1/extra_specs", {"extra_specs": {"volume_backend_name": "slow"}}, UNKNOWN),
    ("PUT", "/1/extra_specs/volume_backend_name", {"volume_backend_name": "slow"}, UNKNOWN),
    ("POST", "/1/extra_specs", {"specs": {}}, UNPROCESSABLE),
    ("PUT", "/1/extra_specs/a", {"b": "1"}, (400, "badRequest", "Request body and URI mismatch")),
    ("PUT", "/1/extra_specs/a", {}, (400, "badRequest", "Request body and URI mismatch")),
    (
        "PUT",
        "/1/extra_specs/a",
        {"a": "1", "b": "1"},
        (400, "badRequest", "Request body contains too many items"),
    ),
    (
        "PUT",
        "/1/extra_specs/a",
        {"a": 1},
        (400, "badRequest", "Invalid input received for a: Input should be a valid string"),
    ),
    (
        "POST",
        "",
        # Block Storage v3 shows the name at volumes without a type.
        {"volume_type": {"name": "__DEFAULT__"}},
        (409, "inProgress", "Volume Type __DEFAULT__ already exists."),
    ),
    ("PUT", "/1/extra_specs/a", ["a"], UNPROCESSABLE),
    ("PUT", "/1/extra_specs/a", b"", (400, "badRequest", "Malformed request body")),
    ("GET", "/7", None, NOT_FOUND),
    ("GET", "/gold", None, NOT_FOUND),
    ("GET", f"/{2**31}", None, NOT_FOUND),
    ("DELETE", "/7", None, NOT_FOUND),
    ("GET", "/7/extra_specs", None, NOT_FOUND),
    ("POST", "/7/extra_specs", {"extra_specs": {"a": "1"}}, NOT_FOUND),
    ("GET", "/1/extra_specs/nothing", None, NOT_FOUND),
    ("GET", "/1/extra_specs/%00", None, NOT_FOUND),
    ("PUT", "/7/extra_specs/a", {"a": "1"}, NOT_FOUND),
    ("DELETE", "/1/extra_specs/nothing", None, NOT_FOUND),
    ("DELETE", "/7/extra_specs/a", None, NOT_FOUND),
]


@ensureDeferred
async def test_what_is_wrong_is_told_and_changes_nothing(daemon: Running) -> None:
    await a_type(daemon, a="1")
    before = (await daemon.call("GET", TYPES)).json
    for method, path, body, expected in WRONG:
        answer = await daemon.call(method, f"{TYPES}{path}", body, "root")
        assert fault(answer) == expected, (method, path, body)
        assert (await daemon.call("GET", TYPES)).json == before


@ensureDeferred
async def test_only_admins_write(daemon: Running) -> None:
    number = await a_type(daemon, a="1")
    for method, path, body in (
        ("POST", "", {"volume_type": {"name": "x"}}),
        ("DELETE", f"/{number}", None),
        ("POST", f"/{number}/extra_specs", {"extra_specs": {"a": "2"}}),
        ("PUT", f"/{number}/extra_specs/a", {"a": "2"}),
        ("DELETE", f"/{number}/extra_specs/a", None),
    ):
        assert fault(await daemon.call(method, f"{TYPES}{path}", body)) == FORBIDDEN
    assert (await daemon.call("GET", f"{TYPES}/{number}/extra_specs/a")).json == {"a": "1"}


@ensureDeferred
async def test_a_type_means_a_backend(daemon: Running) -> None:
    await a_type(daemon, "quick", volume_backend_name="fast")
    await a_type(daemon, "usual", colour="blue")
    (daemon.images / "disk.raw").write_bytes(b"\1" * 1000)
    for volume_type, folder in (("quick", "fast"), ("usual", "volumes"), (None, "volumes")):
        for image in (None, "disk.raw"):
            volume = await a_volume(daemon, volume_type, imageRef=image)
            assert volume["volumeType"] == volume_type
            assert await lies_on(daemon, volume) == folder
    bootable = (await daemon.call("GET", "hp-bootable-volumes")).json["volumes"]
    assert [volume["volumeType"] for volume in bootable] == ["quick", "usual", None]
    # Null and an empty text mean no type, as in Nova.
    assert (await a_volume(daemon, ""))["volumeType"] is None


@ensureDeferred
async def test_a_snapshot_becomes_a_volume_of_a_type(daemon: Running) -> None:
    await a_type(daemon, "quick", volume_backend_name="fast")
    (daemon.images / "disk.raw").write_bytes(b"\1" * 1000)
    origin = await a_volume(daemon, None, imageRef="disk.raw")
    number = await a_snapshot(daemon, origin["id"])
    for volume_type, folder in (("quick", "fast"), (None, "volumes")):
        volume = await a_volume(daemon, volume_type, snapshot_id=number)
        assert await lies_on(daemon, volume) == folder
        address = await daemon.call("GET", f"os-volumes/{volume['id']}/connection", None, "root")
        with Path(address.json["connection"]["address"]).open("rb") as content:
            assert content.read(1001) == b"\1" * 1000 + b"\0"


@ensureDeferred
async def test_volumes_of_no_such_type(daemon: Running) -> None:
    for name in ("gold", "x" * 255):
        wanted = {"volume": {"size": 1, "volume_type": name}}
        assert fault(await daemon.call("POST", "os-volumes", wanted)) == NOT_FOUND
    wrong: list[tuple[Any, str]] = [
        ("x" * 256, " for volume_type: String should have at most 255 characters"),
        (7, " for volume_type: Input should be a valid string"),
        ("\0", ": text must not contain a null character"),
    ]
    for value, text in wrong:
        wanted = {"volume": {"size": 1, "volume_type": value}}
        answer = await daemon.call("POST", "os-volumes", wanted)
        assert fault(answer) == (400, "badRequest", f"Invalid input received{text}")
    assert (await daemon.call("GET", "os-volumes")).json == {"volumes": []}


@ensureDeferred
async def test_a_type_whose_backend_is_gone_makes_no_volumes(tmp_path: Path) -> None:
    daemon = Running(tmp_path, OTHER)
    await a_type(daemon, "quick", volume_backend_name="fast")
    await daemon.stop()
    daemon = Running(tmp_path)
    wanted = {"volume": {"size": 1, "volume_type": "quick"}}
    assert fault(await daemon.call("POST", "os-volumes", wanted)) == (
        400,
        "badRequest",
        "The volume_backend_name of quick, fast, is not configured. Ask for another type.",
    )
    await daemon.stop()


@ensureDeferred
async def test_a_volume_outlives_its_type(daemon: Running) -> None:
    number = await a_type(daemon, "quick", volume_backend_name="fast")
    volume = await a_volume(daemon, "quick")
    assert (await daemon.call("DELETE", f"{TYPES}/{number}", None, "root")).status == 200
    assert (await daemon.call("GET", f"os-volumes/{volume['id']}")).json == {"volume": volume}
    assert await lies_on(daemon, volume) == "fast"
    assert (await daemon.call("DELETE", f"os-volumes/{volume['id']}")).status == 202
    assert await daemon.until(volume["id"], "gone") == "gone"


@pytest.mark.parametrize("token", [None, "wrong"])
@ensureDeferred
async def test_types_are_for_those_who_are_known(daemon: Running, token: str | None) -> None:
    answer = await daemon.request("GET", f"/v1.1/{TENANT}/{TYPES}", token=token)
    assert answer.status == 401
