"""Volumes, snapshots and types, as used by clients of Cinder v1 and v2."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from tests.daemons import OTHER_TENANT, TENANT, Answer, Running


async def ask(
    running: Running, method: str, path: str, body: Any = None, base: str = "v1"
) -> Answer:
    """Send a request to the volume service."""
    return await running.request(method, f"/{base}/{TENANT}/{path}", body)


@ensureDeferred
async def test_the_version_needs_no_token(running: Running) -> None:
    for path in ("/v1", "/v1/"):
        answer = await running.request("GET", path, token=None)
        assert answer.status == 200
        version = answer.json["version"]
        link = {"rel": "self", "href": f"http://127.0.0.1:{running.port}/v1/"}
        assert (version["id"], version["links"]) == ("v1.0", [link])
        assert (
            version["media-types"][0]["type"] == "application/vnd.openstack.volume+json;version=1"
        )


@pytest.mark.parametrize("base", ["v1", "v2", "v1.1"])
@ensureDeferred
async def test_volumes_and_snapshots_are_renamed(running: Running, base: str) -> None:
    made = await ask(running, "POST", "volumes", {"volume": {"size": 1, "name": "old"}}, base)
    number = made.json["volume"]["id"]
    assert made.json["volume"]["display_name"] == "old"
    await running.until(number, "available")
    made = await ask(running, "POST", "snapshots", {"snapshot": {"volume_id": number}}, base)
    snapshot = made.json["snapshot"]["id"]
    for kind, path in (("volume", f"volumes/{number}"), ("snapshot", f"snapshots/{snapshot}")):
        body: Any = {kind: {"display_name": "new", "display_description": "text"}}
        answer = await ask(running, "PUT", path, body, base)
        shown = (await ask(running, "GET", path, None, base)).json[kind]
        assert (answer.status, answer.json[kind]["display_name"]) == (200, "new")
        assert (shown["display_name"], shown["display_description"]) == ("new", "text")
        # The keys of Cinder v2 are shown at v2's paths, and accepted at all.
        names = {key: shown[key] for key in ("name", "description") if key in shown}
        assert names == ({"name": "new", "description": "text"} if base == "v2" else {})
        answer = await ask(running, "PUT", path, {kind: {"description": None}}, base)
        assert answer.json[kind]["display_description"] is None
        assert answer.json[kind]["display_name"] == "new"
        for query in ("name=new", "display_name=new"):
            listed = (await ask(running, "GET", f"{kind}s/detail?{query}", None, base)).json
            assert [each["id"] for each in listed[f"{kind}s"]] == [shown["id"]]
        for wrong, status in (({kind: {"name": 5}}, 400), ({kind: {}}, 422), ({}, 422)):
            assert (await ask(running, "PUT", path, wrong, base)).status == status
        theirs = f"/{base}/{OTHER_TENANT}/{path}"
        assert (await running.request("PUT", theirs, body, token="bob")).status == 404
    answer = await ask(running, "PUT", f"volumes/{number}", {"volume": {"metadata": {"a": "1"}}})
    assert answer.json["volume"]["metadata"] == {"a": "1"}
    answer = await ask(running, "PUT", f"volumes/{number}", {"volume": {"metadata": None}})
    assert answer.json["volume"]["metadata"] == {"a": "1"}
    # The other views show the change, although answers are cached.
    shown = (await running.call("GET", f"os-volumes/{number}")).json["volume"]
    assert (shown["displayName"], shown["metadata"]) == ("new", {"a": "1"})


@ensureDeferred
async def test_lists_have_pages_and_links_below_the_second_version(running: Running) -> None:
    for _ in range(3):
        await running.until(await running.create(), "available")
    ids = [each["id"] for each in (await ask(running, "GET", "volumes")).json["volumes"]]
    for base in ("v1", "v1.1", "v2"):
        answer = await ask(running, "GET", "volumes?limit=2", None, base)
        assert [each["id"] for each in answer.json["volumes"]] == ids[:2]
        links = answer.json.get("volumes_links", [])
        assert [each["rel"] for each in links] == (["next"] if base == "v2" else [])
        for link in links:
            path = link["href"].removeprefix(f"http://127.0.0.1:{running.port}")
            rest = (await running.request("GET", path)).json
            assert ([each["id"] for each in rest["volumes"]], list(rest)) == (ids[2:], ["volumes"])
        for query, shown in (("limit=1&offset=1", ids[1:2]), (f"marker={ids[1]}", ids[2:])):
            answer = await ask(running, "GET", f"volumes/detail?{query}", None, base)
            assert [each["id"] for each in answer.json["volumes"]] == shown
        for query in ("limit=-1", "limit=x", "offset=x", "marker=none", "sort=name:asc"):
            assert (await ask(running, "GET", f"volumes?{query}", None, base)).status == 400


@ensureDeferred
async def test_lists_of_types_page_and_filter(running: Running) -> None:
    for name in ("a", "b"):
        body = {"volume_type": {"name": name, "extra_specs": {"backend": "local"}}}
        answer = await running.call("POST", "os-volume-types", body, "root")
        assert answer.status == 200, answer
    for path in (f"/v1/{TENANT}/types", f"/v1.1/{TENANT}/os-volume-types"):
        for query, names in (
            ("", ["a", "b"]),
            ("limit=1", ["a"]),
            ("offset=1", ["b"]),
            ("name=b", ["b"]),
            ("is_public=None", ["a", "b"]),
            ("is_public=False", []),
        ):
            answer = await running.request("GET", f"{path}?{query}")
            assert [each["name"] for each in answer.json["volume_types"]] == names, query
        (first, _) = (await running.request("GET", path)).json["volume_types"]
        answer = await running.request("GET", f"{path}?marker={first['id']}")
        assert [each["name"] for each in answer.json["volume_types"]] == ["b"]
        for query in ("marker=99", "limit=x", "extra_specs=x", "sort_key=name"):
            assert (await running.request("GET", f"{path}?{query}")).status == 400, query
