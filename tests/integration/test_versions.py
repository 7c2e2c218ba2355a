"""The version documents of the API (specification, section 5.1)."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from pytest_twisted import ensureDeferred

from bootvol.api.nova.dialect import description
from tests.daemons import OTHER_TENANT, TENANT, Running


@ensureDeferred
async def test_versions_need_no_token(running: Running) -> None:
    answer = await running.request("GET", "/", token=None)
    assert answer.status == 200
    first, second = answer.json["versions"]
    host = f"http://127.0.0.1:{running.port}"
    assert first == {
        "id": "v1.1",
        "status": "CURRENT",
        "updated": "2011-01-21T11:33:21Z",
        "links": [{"rel": "self", "href": f"{host}/v1.1/"}],
    }
    assert second["id"] == "v2.0"
    assert second["links"] == [{"rel": "self", "href": f"{host}/v2/"}]
    for path, version, media in (
        ("/v1.1", first, "application/vnd.openstack.compute-v1.1+json"),
        ("/v1.1/", first, "application/vnd.openstack.compute-v1.1+json"),
        ("/v2", second, "application/vnd.openstack.compute+json;version=2"),
        ("/v2/", second, "application/vnd.openstack.compute+json;version=2"),
    ):
        answer = await running.request("GET", path, token=None)
        assert answer.status == 200
        assert answer.json["version"] == {
            **version,
            "media-types": [{"base": "application/json", "type": media}],
        }


@ensureDeferred
async def test_the_second_version_is_the_first_with_uuids(running: Running) -> None:
    number = await running.create()
    await running.until(number, "available")
    for path in ("os-volumes", "os-volumes/detail.json", f"os-volumes/{number}", "nothing"):
        first = await running.request("GET", f"/v1.1/{TENANT}/{path}")
        second = await running.request("GET", f"/v2/{TENANT}/{path}")
        assert first.status == second.status
        assert first.json.keys() == second.json.keys()
    (volume,) = (await running.request("GET", f"/v2/{TENANT}/os-volumes")).json["volumes"]
    uuid = volume["id"]
    assert str(UUID(uuid)) == uuid
    for base, shown in (("v1.1", number), ("v2", uuid)):
        for named in (number, uuid, uuid.upper(), uuid.replace("-", "")):
            found = await running.request("GET", f"/{base}/{TENANT}/os-volumes/{named}")
            assert found.json["volume"]["id"] == shown
            assert found.json["volume"]["snapshotId"] == ("" if base == "v1.1" else None)
    strange = await running.request("GET", f"/v2/{TENANT}/os-volumes/{uuid4()}")
    assert strange.status == 404
    others = await running.request("GET", f"/v2/{OTHER_TENANT}/os-volumes/{uuid}", token="bob")
    assert others.status == 404
    deleted = await running.request("DELETE", f"/v2/{TENANT}/os-volumes/{uuid}")
    assert deleted.status == 202
    await running.until(number, "gone")


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/nowhere"), ("GET", "/v3/x"), ("POST", f"/{TENANT}/os-volumes"), ("GET", "/v1.0/")],
)
@ensureDeferred
async def test_a_path_without_a_version_leads_to_them(
    running: Running, method: str, path: str
) -> None:
    answer = await running.request(method, path, token=None)
    assert answer.status == 300
    first, second = answer.json["choices"]
    host = f"http://127.0.0.1:{running.port}"
    assert first == {
        "id": "v1.1",
        "status": "CURRENT",
        "links": [{"rel": "self", "href": f"{host}/v1.1{path}"}],
        "media-types": [
            {"base": "application/json", "type": "application/vnd.openstack.compute-v1.1+json"}
        ],
    }
    assert second["links"] == [{"rel": "self", "href": f"{host}/v2{path}"}]


@ensureDeferred
async def test_the_description_needs_no_token(running: Running) -> None:
    answer = await running.request("GET", "/openapi.json", token=None)
    assert answer.status == 200
    assert answer.json == description()
