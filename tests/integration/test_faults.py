"""Every mistake in a request, and the specified fault."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_twisted import ensureDeferred

from bootvol.testing.backends import noise
from tests.daemons import OTHER_TENANT, TENANT, Answer, Running
from tests.fuzzing import fuzz

BASE = f"/v1.1/{TENANT}"
VOLUMES = f"{BASE}/os-volumes"
SIZE_TEXT = "Invalid input received: Volume size '{}' must be an integer and greater than 0"
NOT_FOUND = (404, "itemNotFound", "The resource could not be found.")


def fault(answer: Answer) -> tuple[int, str, str]:
    """Check the form of a fault; return status, key and message."""
    ((key, content),) = answer.json.items()
    assert content["code"] == answer.status
    return answer.status, key, content["message"]


BAD_BODIES: list[tuple[Any, tuple[int, str, str]]] = [
    (b"{", (400, "badRequest", "Malformed request body")),
    (b"", (400, "badRequest", "Malformed request body")),
    (b"\xff", (400, "badRequest", "Malformed request body")),
    (b'{"volume": {"size": NaN}}', (400, "badRequest", "Malformed request body")),
    (b"[" * 900, (400, "badRequest", "Malformed request body")),
    (b"[" * 5000, (400, "badRequest", "Invalid input received: the body has too many values")),
    ([], (422, "cloudServersFault", "Unable to process the contained instructions")),
    ({}, (422, "cloudServersFault", "Unable to process the contained instructions")),
    ({"volume": None}, (422, "cloudServersFault", "Unable to process the contained instructions")),
    ({"volume": []}, (422, "cloudServersFault", "Unable to process the contained instructions")),
    ({"volume": {}}, (422, "cloudServersFault", "Unable to process the contained instructions")),
    (
        {"volume": {"display_name": "x"}},
        (400, "badRequest", SIZE_TEXT.format(None)),
    ),
    *(
        ({"volume": {"size": size}}, (400, "badRequest", SIZE_TEXT.format(size)))
        for size in (None, 0, -1, 1.5, True, "", "x", "-1", "1.5", "²", 2**31, "9" * 30)
    ),
    (
        {"volume": {"size": 1, "display_name": "x" * 256}},
        (
            400,
            "badRequest",
            "Invalid input received for display_name: String should have at most 255 characters",
        ),
    ),
    (
        {"volume": {"size": 1, "metadata": {"key": 1}}},
        (
            400,
            "badRequest",
            "Invalid input received for metadata.key: Input should be a valid string",
        ),
    ),
    (
        {"volume": {"size": 1, "display_description": "a\0b"}},
        (400, "badRequest", "Invalid input received: text must not contain a null character"),
    ),
    (
        {"volume": {"size": 1, "snapshot_id": 3, "imageRef": "4"}},
        (400, "badRequest", "Snapshot and image cannot be specified together."),
    ),
    (
        {"volume": {"size": 1, "snapshot_id": 3}},
        (404, "itemNotFound", "The resource could not be found."),
    ),
    (
        {"volume": {"size": 1, "imageRef": "missing"}},
        (404, "itemNotFound", "Image missing could not be found."),
    ),
    (
        {"volume": {"size": 1, "imageRef": "http://example.com/missing"}},
        (404, "itemNotFound", "Image http://example.com/missing could not be found."),
    ),
    (
        {"volume": {"size": 1, "availability_zone": "elsewhere"}},
        (400, "badRequest", "The availability zone elsewhere is not known."),
    ),
    (
        {"volume": {"size": 1, "imageRef": "large"}},
        (400, "badRequest", "Size of specified image is larger than volume size."),
    ),
    (
        {"volume": {"size": 1001}},
        (
            413,
            "overLimit",
            "Volume quota exceeded. You cannot create a volume of size 1001G",
        ),
    ),
]


@pytest.mark.parametrize(("body", "expected"), BAD_BODIES)
@ensureDeferred
async def test_bad_bodies(running: Running, body: Any, expected: tuple[int, str, str]) -> None:
    (running.images / "large").write_bytes(noise(1000))
    (running.images / "index.toml").write_text(
        '[[images]]\nid = "large"\nfile = "large"\nmin_disk = 2\n'
    )
    answer = await running.request("POST", VOLUMES, body)
    assert fault(answer) == expected
    if answer.status == 413:
        assert answer.json["overLimit"]["retryAfter"] == 0
    assert (await running.call("GET", "os-volumes")).json == {"volumes": []}


BAD_REQUESTS: list[tuple[str, str, dict[str, Any], tuple[int, str, str]]] = [
    *(
        (
            "GET",
            path,
            {"token": token},
            (
                401,
                "unauthorized",
                "This server could not verify that you are authorized to access it.",
            ),
        )
        for path in (VOLUMES, f"{VOLUMES}/1", f"{BASE}/hp-bootable-volumes", f"{BASE}/images")
        for token in (None, "", "wrong", "ÿ")
    ),
    (
        "GET",
        f"/v1.1/{OTHER_TENANT}/os-volumes",
        {},
        (400, "badRequest", "Malformed request url"),
    ),
    ("GET", "/v1.1/%ff/os-volumes", {}, (400, "badRequest", "Malformed request url")),
    ("GET", "/v1.1//os-volumes", {}, (400, "badRequest", "Empty path segment")),
    ("GET", f"{BASE}/nothing", {}, NOT_FOUND),
    ("GET", f"{VOLUMES}/1", {}, NOT_FOUND),
    ("GET", f"{VOLUMES}/x", {}, NOT_FOUND),
    ("GET", f"{VOLUMES}/1/nothing", {}, NOT_FOUND),
    ("DELETE", f"{VOLUMES}/1", {}, NOT_FOUND),
    ("DELETE", f"{VOLUMES}/99999999999999999999999", {}, NOT_FOUND),
    ("GET", f"{VOLUMES}/{'0' * 20}{'9' * 5000}", {}, NOT_FOUND),
    *(
        ("GET", VOLUMES, {"headers": {"Host": host}}, (400, "badRequest", "Malformed Host header"))
        for host in ("a..b", "a" * 70, "ÿ", "a:" + "1" * 300, "a." * 200)
    ),
    *(
        (method, path, {}, (405, "badMethod", "The method is not allowed for the requested URL."))
        for method, path in (
            ("PUT", VOLUMES),
            ("PATCH", f"{VOLUMES}/1"),
            ("POST", f"{BASE}/hp-bootable-volumes"),
            ("DELETE", f"{BASE}/hp-bootable-volumes/1"),
            ("POST", "/"),
        )
    ),
    (
        "POST",
        VOLUMES,
        {"body": b"size=1", "headers": {"Content-Type": "application/x-www-form-urlencoded"}},
        (400, "badRequest", "Unsupported Content-Type"),
    ),
    (
        "POST",
        VOLUMES,
        {"body": b"x", "headers": {"Content-Type": "multipart/form-data"}},
        (400, "badRequest", "Unsupported Content-Type"),
    ),
    (
        "POST",
        VOLUMES,
        {"body": b"<volume/>", "headers": {"Content-Type": "application/xml"}},
        (400, "badRequest", "Unsupported Content-Type"),
    ),
    ("POST", VOLUMES, {"body": b" " * 200_000}, (400, "badRequest", "Request is too large.")),
    ("GET", f"{VOLUMES}?limit=x", {}, (400, "badRequest", "limit param must be an integer")),
    ("GET", f"{VOLUMES}?limit=-1", {}, (400, "badRequest", "limit param must be positive")),
    (
        "GET",
        f"{BASE}/images?{'&'.join(['minDisk=0'] * 101)}",
        {},
        (400, "badRequest", "Too many parameters in the URL"),
    ),
    ("GET", f"{VOLUMES}?offset=x", {}, (400, "badRequest", "offset param must be an integer")),
    ("GET", f"{VOLUMES}?offset=-1", {}, (400, "badRequest", "offset param must be positive")),
]


@pytest.mark.parametrize(("method", "path", "more", "expected"), BAD_REQUESTS)
@ensureDeferred
async def test_bad_requests(
    running: Running, method: str, path: str, more: dict[str, Any], expected: tuple[int, str, str]
) -> None:
    answer = await running.request(method, path, **more)
    assert fault(answer) == expected
    assert answer.headers["x-compute-request-id"].startswith("req-")
    if answer.status == 405:
        assert answer.headers["allow"]


@ensureDeferred
async def test_empty_bodies_with_a_json_type_are_no_error(running: Running) -> None:
    number = await running.create()
    await running.until(number, "available")
    headers = {"Content-Type": "application/json"}
    for method, path, expected in (("GET", VOLUMES, 200), ("DELETE", f"{VOLUMES}/{number}", 202)):
        assert (await running.request(method, path, b"", headers=headers)).status == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(
    [
        *("size", "display_name", "imageRef", "snapshot_id", "metadata", "availability_zone"),
        "volume_type",
    ]
)


@fuzz(150)
@given(body=st.dictionaries(KEYS, JSON).map(lambda volume: {"volume": volume}) | JSON)
@ensureDeferred
async def test_no_body_gives_a_server_error(running: Running, body: Any) -> None:
    """No body, right or wrong, gives a status of 5xx.

    Break: `src/bootvol/api/bodies.py`: `except ValidationError as error:` ->
    `except KeyError as error:`.
    """
    try:
        content = orjson.dumps(body)
    except (TypeError, ValueError):
        return  # hypothesis made a value outside JSON
    answer = await running.request("POST", VOLUMES, content)
    if answer.status != 200:
        assert fault(answer)[0] in {400, 404, 413, 422}


NESTED = [
    *(("os-volumes", f'"volume":{{"size":1,"{key}":%s}}') for key in ("size", "metadata", "x")),
    *((path, '"volume":%s') for path in ("os-volumes", "os-volumes_boot")),
    ("servers", '"server":{"block_device_mapping":[{"volume_id":1,"delete_on_termination":%s}]}'),
    ("servers/1/os-volume_attachments", '"volumeAttachment":{"volumeId":%s}'),
    ("servers/1/action", '"os-getConsoleOutput":{"length":%s}'),
    ("os-snapshots", '"snapshot":{"volume_id":1,"force":%s}'),
    ("os-keypairs", '"keypair":{"name":%s}'),
    ("os-volume-types", '"volume_type":{"name":"x","extra_specs":%s}'),
]


@pytest.mark.parametrize("depth", [40, 200, 950, 5000])
@ensureDeferred
async def test_nested_bodies_are_refused(running: Running, depth: int) -> None:
    for path, text in NESTED:
        for opening, closing in (("[", "]"), ('{"a":', "}")):
            inside = opening * depth + "1" + closing * depth
            body = f"{{{text % inside}}}".encode()
            answer = await running.request("POST", f"/v1.1/{TENANT}/{path}", body, token="root")
            assert fault(answer)[0] in {400, 404, 422}, (path, answer)


CHANGES = [
    ("POST", "os-volume-types", "volume_type"),
    ("POST", "os-volume-types/1/extra_specs", "extra_specs"),
    ("PUT", "os-volume-types/1/extra_specs/name", None),
    ("PUT", f"os-quota-sets/{TENANT}", "quota_set"),
]
NAMES = st.sampled_from(["name", "extra_specs", "volumes", "gigabytes", "volume_backend_name"])


@fuzz(150)
@given(change=st.sampled_from(CHANGES), content=st.dictionaries(NAMES, JSON) | JSON)
@ensureDeferred
async def test_no_change_by_an_admin_gives_a_server_error(
    running: Running, change: tuple[str, str, str | None], content: Any
) -> None:
    method, path, entity = change
    try:
        body = orjson.dumps(content if entity is None else {entity: content})
    except (TypeError, ValueError):
        return  # hypothesis made a value outside JSON
    # The type for the change, if not made yet.
    await running.call("POST", "os-volume-types", {"volume_type": {"name": "x"}}, "root")
    answer = await running.call(method, path, body, "root")
    if answer.status != 200:
        assert fault(answer)[0] in {400, 409, 422}


@fuzz(150)
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS"]),
    path=st.lists(
        st.sampled_from(
            [
                *("os-volumes", "hp-bootable-volumes", "detail", "import", "limits", "extensions"),
                *("os-volume-types", "extra_specs", "1", "os-quota-sets", TENANT, "defaults"),
            ]
        )
        | st.text(st.characters(codec="utf-8"), max_size=5),
        max_size=4,
    ),
)
@ensureDeferred
async def test_no_path_gives_a_server_error(running: Running, method: str, path: list[str]) -> None:
    """No path gives a status of 5xx.

    Break: `src/bootvol/service/ids.py`: `except ValueError:` -> `except KeyError:`.
    """
    url = "/".join([BASE, *(quote(part, safe="") for part in path)])
    answer = await running.request(method, url)
    assert answer.status < 500
    if answer.status >= 400 and method != "HEAD":
        assert fault(answer)[0] == answer.status
