"""The identity API over a real socket: both versions, and the answers to wrong requests."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any

import pytest_twisted
from pytest_twisted import ensureDeferred

from tests.daemons import OTHER_TENANT, TENANT, Answer, Running
from tests.people import ACCESS_KEY, BOBS, PASSWORD, PEOPLE, SECRET_KEY

KEYS = {"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}
V2 = "/v2.0/tokens"
V3 = "/identity/v3/auth/tokens"


@pytest_twisted.async_yield_fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Running]:
    """A daemon with log-ins."""
    daemon = Running(tmp_path, identity=PEOPLE)
    yield daemon
    await daemon.stop()


def password(scope: Any = None, user: Any = None, secret: str = PASSWORD) -> dict[str, Any]:
    """Return the body of a v3 log-in."""
    named = {"name": "ann", "domain": {"id": "default"}} if user is None else user
    identity = {"methods": ["password"], "password": {"user": {**named, "password": secret}}}
    return {"auth": {"identity": identity, **({} if scope is None else {"scope": scope})}}


def keys(**more: Any) -> dict[str, Any]:
    """Return the body of a v2.0 log-in by access key."""
    return {"auth": {"apiAccessKeyCredentials": KEYS, **more}}


async def post(daemon: Running, path: str, body: Any) -> Answer:
    """Log in."""
    return await daemon.request("POST", path, body, token=None)


async def v3_token(daemon: Running, body: dict[str, Any]) -> str:
    """Log in by v3; return the token."""
    answer = await post(daemon, V3, body)
    assert answer.status == 201, answer
    return answer.headers["x-subject-token"]


DEMO = {"project": {"id": TENANT}}


# --- v2.0 (specification, sections 1.1 and 1.2) --------------------------------------------------


WAYS: list[dict[str, Any]] = [
    {"apiAccessKeyCredentials": KEYS},
    {"passwordCredentials": {"username": "ann", "password": PASSWORD}},
    {"passwordCredentials": {"userId": "10", "password": PASSWORD}},
]
TENANTS: list[dict[str, Any]] = [
    {"tenantId": TENANT},
    {"tenantId": int(TENANT)},
    {"tenantName": "demo"},
]


@ensureDeferred
async def test_v2_logs_in(daemon: Running) -> None:
    for path in (V2, "/identity/v2.0/tokens", "/v2.0/tokens.json"):
        for credentials, tenant in product(WAYS, TENANTS):
            answer = await post(daemon, path, {"auth": {**credentials, **tenant}})
            await is_logged_in_by_v2(daemon, answer)


async def is_logged_in_by_v2(daemon: Running, answer: Answer) -> None:
    """Compare an answer with the specification."""
    assert answer.status == 200
    access = answer.json["access"]
    assert re.fullmatch(r"HPAuth_[A-Za-z0-9._-]+", access["token"]["id"])
    expires = access["token"]["expires"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", expires)
    life = datetime.fromisoformat(expires) - datetime.now(UTC)
    assert timedelta(hours=11.9) < life <= timedelta(hours=12)
    assert access["token"]["tenant"] == {"id": TENANT, "name": "demo"}
    assert access["user"] == {
        "id": "10",
        "name": "ann",
        "roles": [{"id": "admin", "name": "admin"}, {"id": "member", "name": "member"}],
    }
    root = f"http://127.0.0.1:{daemon.port}"
    endpoint = {
        "tenantId": TENANT,
        "publicURL": f"{root}/v1.1/{TENANT}",
        "region": "nova",
        "versionId": "1.1",
        "versionInfo": f"{root}/v1.1/",
        "versionList": root,
    }
    catalog = {(each["name"], each["type"]): each for each in access["serviceCatalog"]}
    assert catalog["Compute", "compute"]["endpoints"] == [endpoint]
    assert catalog["Block Storage", "volume"]["endpoints"] == [endpoint]
    newer = {"volumev3", "block-storage"}
    assert {kind for _, kind in catalog} == {"compute", "volume", "image", "identity", *newer}
    listed = await daemon.call("GET", "os-volumes", token=access["token"]["id"])
    assert (listed.status, listed.json) == (200, {"volumes": []})


@ensureDeferred
async def test_v2_without_a_tenant(daemon: Running) -> None:
    answer = await post(daemon, V2, keys(tenantId=None, tenantName=""))
    access = answer.json["access"]
    assert "tenant" not in access["token"]
    assert access["user"]["roles"] == []
    assert [each["type"] for each in access["serviceCatalog"]] == ["identity"]
    assert all(
        isinstance(value, str)
        for each in access["serviceCatalog"]
        for endpoint in each["endpoints"]
        for value in endpoint.values()
    )
    token = access["token"]["id"]
    assert (await daemon.call("GET", "os-volumes", token=token)).status == 401
    tenants = await daemon.request("GET", "/v2.0/tenants", token=token)
    assert [each["id"] for each in tenants.json["tenants"]] == [TENANT, OTHER_TENANT]
    on = {"auth": {"token": {"id": token}, "tenantName": "demo"}}
    scoped = (await post(daemon, V2, on)).json["access"]["token"]["id"]
    assert (await daemon.call("GET", "os-volumes", token=scoped)).status == 200


V2_REFUSED: list[tuple[Any, int]] = [
    (b"{", 400),
    ([], 400),
    ({}, 400),
    ({"auth": None}, 400),
    ({"auth": {}}, 400),
    ({"auth": {"tenantId": TENANT}}, 400),
    ({"auth": {"passwordCredentials": {"username": "ann"}}}, 400),
    ({"auth": {"passwordCredentials": {"username": "ann", "password": 5}}}, 400),
    (keys(token={"id": "x"}), 400),
    (keys(tenantId=True), 400),
    (keys(tenantId=1.5), 400),
    (keys(tenantId="x" * 256), 400),
    (keys(tenantName="closed"), 401),
    (keys(tenantId=-1), 401),
    (keys(tenantId=TENANT, tenantName="other"), 401),
    ({"auth": {"apiAccessKeyCredentials": {**KEYS, "secretKey": "no"}}}, 401),
    ({"auth": {"apiAccessKeyCredentials": {**KEYS, "accessKey": "no"}}}, 401),
    ({"auth": {"passwordCredentials": {"username": "eve", "password": "x"}}}, 401),
    ({"auth": {"token": {"id": "HPAuth_x"}, "tenantId": TENANT}}, 401),
    (b"x" * 200_000, 400),
]


@ensureDeferred
async def test_v2_refuses(daemon: Running) -> None:
    for body, status in V2_REFUSED:
        answer = await post(daemon, V2, body)
        assert answer.status == status, body
        fault = answer.json["identityFault"]
        assert set(fault) == {"message", "details", "code"}
        assert fault["code"] == status
        for secret in (PASSWORD, SECRET_KEY):
            assert secret.encode() not in answer.body


# --- v3 ------------------------------------------------------------------------------------------


USERS = [
    {"name": "ann", "domain": {"id": "default"}},
    {"name": "ann", "domain": {"name": "Default"}},
    {"id": "10"},
]
PROJECTS = [
    {"id": TENANT},
    {"name": "demo", "domain": {"id": "default"}},
    {"name": "demo", "domain": {"name": "default"}},
]


@ensureDeferred
async def test_v3_logs_in(daemon: Running) -> None:
    for user, project in product(USERS, PROJECTS):
        answer = await post(daemon, V3, password({"project": project}, user))
        await is_logged_in_by_v3(daemon, answer)


async def is_logged_in_by_v3(daemon: Running, answer: Answer) -> None:
    """Compare an answer with the expectations of Keystone's clients."""
    assert answer.status == 201
    token = answer.headers["x-subject-token"]
    shown = answer.json["token"]
    domain = {"id": "default", "name": "Default"}
    assert shown["methods"] == ["password"]
    assert (shown["user"]["id"], shown["user"]["name"]) == ("10", "ann")
    assert shown["user"]["domain"] == domain
    assert shown["project"] == {"id": TENANT, "name": "demo", "domain": domain}
    assert [role["name"] for role in shown["roles"]] == ["admin", "member"]
    assert datetime.fromisoformat(shown["issued_at"]) < datetime.fromisoformat(shown["expires_at"])
    urls = {each["type"]: each["endpoints"][0]["url"] for each in shown["catalog"]}
    root = f"http://127.0.0.1:{daemon.port}"
    assert urls == {
        "compute": f"{root}/v2/{TENANT}",
        "volume": f"{root}/v1.1/{TENANT}",
        "volumev3": f"{root}/volume/v3/{TENANT}",
        "block-storage": f"{root}/volume/v3/{TENANT}",
        "image": f"{root}/image",
        "identity": f"{root}/identity",
    }
    assert (await daemon.call("GET", "os-volumes", token=token)).status == 200
    again = await daemon.request("GET", V3, token=token, headers={"X-Subject-Token": token})
    assert (again.status, again.json) == (200, answer.json)
    assert again.headers["x-subject-token"] == token
    catalog = await daemon.request("GET", "/identity/v3/auth/catalog", token=token)
    assert catalog.json["catalog"] == shown["catalog"]


@ensureDeferred
async def test_only_operators_see_the_users_and_projects_of_others(daemon: Running) -> None:
    """Break: `src/bootvol/api/keystone/v3.py`: `and policy.grants(context.session.roles,
    Right.USERS)` -> ``
    """
    member = await v3_token(daemon, password({"project": {"id": OTHER_TENANT}}))
    operator = await v3_token(daemon, password(DEMO))

    async def get(path: str, token: str) -> tuple[int, list[str]]:
        answer = await daemon.request("GET", f"/identity/v3/{path}", token=token)
        if answer.status != 200:
            return answer.status, []
        (kind,) = answer.json.keys() - {"links"}
        found = answer.json[kind]
        return 200, [each["name"] for each in (found if isinstance(found, list) else [found])]

    for path, mine, all_of_them in (
        ("users", (200, ["ann"]), (200, ["ann", "bob"])),
        ("users?name=ann", (200, ["ann"]), (200, ["ann"])),
        ("users?name=bob", (403, []), (200, ["bob"])),
        ("users?name=nobody", (403, []), (200, [])),
        ("users/10", (200, ["ann"]), (200, ["ann"])),
        ("users/nobody", (403, []), (404, [])),
        ("projects/nosuch", (403, []), (404, [])),
        ("projects?name=closed", (200, []), (200, ["closed"])),
        ("auth/projects", (200, ["demo", "other"]), (200, ["demo", "other"])),
    ):
        assert await get(path, member) == mine, path
        status, names = await get(path, operator)
        assert (status, sorted(names)) == all_of_them, path


@ensureDeferred
async def test_v3_without_a_project(daemon: Running) -> None:
    scopes: list[Any] = [None, "unscoped", {"unscoped": {}}]
    for scope in scopes:
        answer = await post(daemon, V3, password(scope))
        assert (answer.status, "project" in answer.json["token"]) == (201, False)
    token = answer.headers["x-subject-token"]
    assert [each["type"] for each in answer.json["token"]["catalog"]] == ["identity"]
    assert (await daemon.call("GET", "os-volumes", token=token)).status == 401
    for path in ("auth/projects", "projects", "users/10/projects"):
        listed = await daemon.request("GET", f"/identity/v3/{path}", token=token)
        assert [each["name"] for each in listed.json["projects"]] == ["demo", "other"]
    named = await daemon.request("GET", "/identity/v3/projects?name=other", token=token)
    assert [each["id"] for each in named.json["projects"]] == [OTHER_TENANT]
    one = await daemon.request("GET", f"/identity/v3/projects/{TENANT}", token=token)
    assert (one.status, one.json["project"]["name"]) == (200, "demo")
    assert (await daemon.request("GET", "/identity/v3/projects/x", token=token)).status == 403
    foreign = await daemon.request("GET", "/identity/v3/users/bob/projects", token=token)
    assert foreign.status == 403
    identity = {"methods": ["token"], "token": {"id": token}}
    scoped = await v3_token(daemon, {"auth": {"identity": identity, "scope": DEMO}})
    assert (await daemon.call("GET", "os-volumes", token=scoped)).status == 200


@ensureDeferred
async def test_v3_revokes(daemon: Running) -> None:
    token = await v3_token(daemon, password(DEMO))
    other = await v3_token(daemon, password(DEMO))
    headers = {"X-Subject-Token": token}
    answer = await daemon.request("DELETE", V3, token=token, headers=headers)
    assert (answer.status, answer.body) == (204, b"")
    assert (await daemon.call("GET", "os-volumes", token=token)).status == 401
    assert (await daemon.request("GET", V3, token=token, headers=headers)).status == 401
    assert (await daemon.request("GET", V3, token=other, headers=headers)).status == 404
    assert (await daemon.request("DELETE", V3, token=other, headers=headers)).status == 404
    assert (await daemon.call("GET", "os-volumes", token=other)).status == 200


@ensureDeferred
async def test_v3_shows_a_token_to_its_user_and_to_admins(daemon: Running) -> None:
    admin = await v3_token(daemon, password(DEMO))
    member = await v3_token(daemon, password({"project": {"name": "other"}}))
    bob = await v3_token(daemon, password({"project": {"name": "other"}}, {"name": "bob"}, BOBS))

    async def status(method: str, asking: str, subject: str) -> int:
        headers = {"X-Subject-Token": subject}
        return (await daemon.request(method, V3, token=asking, headers=headers)).status

    assert await status("GET", admin, bob) == 200
    assert await status("HEAD", admin, bob) == 200
    assert await status("GET", member, admin) == 200
    assert await status("GET", bob, admin) == 403
    assert await status("DELETE", bob, admin) == 403
    assert await status("GET", member, bob) == 403
    assert await status("GET", "x", bob) == 401
    assert (await daemon.request("GET", V3, token=admin)).status == 404
    assert await status("DELETE", admin, bob) == 204


V3_REFUSED: list[tuple[Any, int]] = [
    (b"", 400),
    ({"auth": {}}, 400),
    ({"auth": {"identity": {"methods": []}}}, 400),
    ({"auth": {"identity": {"methods": ["password"]}}}, 400),
    ({"auth": {"identity": {"methods": ["totp"], "totp": {}}}}, 400),
    ({"auth": {"identity": {"methods": ["password", "totp"], "password": {}}}}, 400),
    (password({"domain": {"id": "default"}}), 400),
    (password({"system": {"all": True}}), 400),
    (password("else"), 400),
    (password({"project": {"id": 7}}), 400),
    (password(DEMO, secret="x" * 5000), 400),
    (password(DEMO, secret="wrong"), 401),
    (password(DEMO, {}), 401),
    (password(DEMO, {"name": "eve"}), 401),
    (password(DEMO, {"name": "ann", "domain": {"id": "elsewhere"}}), 401),
    (password({"project": {"name": "closed"}}), 401),
    (password({"project": {}}), 401),
    ({"auth": {"identity": {"methods": ["token"], "token": {"id": "x"}}}}, 401),
]


@ensureDeferred
async def test_v3_refuses(daemon: Running) -> None:
    for body, status in V3_REFUSED:
        answer = await post(daemon, V3, body)
        assert answer.status == status, body
        assert answer.json["error"]["code"] == status
        assert answer.json["error"]["title"]
        assert PASSWORD.encode() not in answer.body


# --- versions, guessing, and no log-ins ----------------------------------------------------------


@ensureDeferred
async def test_versions(daemon: Running) -> None:
    root = f"http://127.0.0.1:{daemon.port}"
    for path in ("/identity", "/identity/"):
        answer = await daemon.request("GET", path, token=None)
        assert answer.status == 300
        values = answer.json["versions"]["values"]
        assert [each["id"] for each in values] == ["v3.14", "v2.0"]
    for number, each in enumerate(("v3", "v2.0")):
        for path in (f"/identity/{each}", f"/identity/{each}/"):
            answer = await daemon.request("GET", path, token=None)
            assert (answer.status, answer.json["version"]) == (200, values[number])
        assert values[number]["links"] == [{"rel": "self", "href": f"{root}/identity/{each}/"}]
    for path, key in (("/identity/x", "error"), ("/identity/v3/x", "error")):
        answer = await daemon.request("GET", path, token=None)
        assert (answer.status, list(answer.json)) == (404, [key])
    for path in ("/v2.0/x", "/identity/v2.0/x"):
        answer = await daemon.request("GET", path, token=None)
        assert (answer.status, list(answer.json)) == (404, ["identityFault"])
    assert (await daemon.request("PUT", V3, token=None)).status == 405
    odd = await daemon.request("GET", "/identity", token=None, headers={"Host": "x:ÿ"})
    assert odd.status == 400


WRONG: list[tuple[str, Any]] = [
    (V2, {"auth": {"apiAccessKeyCredentials": {**KEYS, "secretKey": "no"}}}),
    (V3, password(secret="no")),
    (V3, password(user={"name": "nobody"})),
]


@ensureDeferred
async def test_who_guesses_has_to_wait(daemon: Running) -> None:
    for path, wrong in WRONG:
        answers = [await post(daemon, path, wrong) for _ in range(7)]
        assert [answer.status for answer in answers] == [401] * 5 + [429] * 2
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 2
        (told,) = answers[-1].json.values()
        assert told["code"] == 429
    # Another user may log in meanwhile.
    await v3_token(daemon, password({"project": {"name": "other"}}, {"name": "bob"}, BOBS))


@ensureDeferred
async def test_where_nobody_logs_in_there_is_nothing(running: Running) -> None:
    for method, path in (
        ("GET", "/identity"),
        ("GET", "/identity/v3"),
        ("POST", V3),
        ("POST", V2),
    ):
        answer = await running.request(method, path, password(), token=None)
        assert (answer.status, list(answer.json)) == (404, ["error"])
