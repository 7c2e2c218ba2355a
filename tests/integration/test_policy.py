"""The table ``[policy]``, for every kind of identity."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred

from bootvol.policy import Right
from tests.daemons import OTHER_TENANT, TENANT, Running
from tests.people import BOBS, PASSWORD, PEOPLE

ROLES = ("reader", "member", "_member_", "admin", "hypervisor", "developer")
IDENTITY = "".join(
    f'[[identity.tokens]]\ntoken = "{role}"\ntenant = "{TENANT}"\nuser = "u"\nroles = ["{role}"]\n'
    for role in ROLES
) + (
    f'[[identity.tokens]]\ntoken = "without"\ntenant = "{TENANT}"\nuser = "u"\n'
    f'[[identity.tokens]]\ntoken = "empty"\ntenant = "{TENANT}"\nuser = "u"\nroles = []\n'
)
#: For each right, a call that needs the right, and the status with the right.
CALLS: dict[Right, tuple[str, str, object, int]] = {
    Right.READ: ("GET", "os-volumes", None, 200),
    Right.WRITE: ("DELETE", "os-volumes/99", None, 404),
    Right.CONNECTION: ("GET", "os-volumes/99/connection", None, 404),
    Right.VOLUME_TYPES: ("DELETE", "os-volume-types/99", None, 404),
    Right.QUOTAS: ("PUT", f"os-quota-sets/{TENANT}", {"quota_set": {}}, 200),
    Right.GOLDEN_VOLUMES: ("GET", "golden-volumes", None, 200),
}
MEMBER = {Right.READ, Right.WRITE}


async def allowed(daemon: Running, token: str, tenant: str = TENANT) -> set[Right]:
    """Return the calls allowed with a token. The others must be refused."""
    found = set()
    for right, (method, path, body, expected) in CALLS.items():
        answer = await daemon.request(method, f"/v1.1/{tenant}/{path}", body, token)
        assert answer.status in (expected, 403), (right, answer)
        if answer.status == 403:
            assert answer.json == {
                "resizeNotAllowed": {
                    "code": 403,
                    "message": "Access was denied to this resource.",
                }
            }
        else:
            found.add(right)
    return found


@pytest_twisted.async_yield_fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Running]:
    """A daemon with a separate role for hypervisors."""
    table = '[policy]\nconnection = ["hypervisor", "admin"]\ngolden_volumes = []'
    daemon = Running(tmp_path, table, identity=IDENTITY)
    yield daemon
    await daemon.stop()


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("reader", {Right.READ}),
        ("member", MEMBER),
        ("_member_", MEMBER),
        ("without", MEMBER),
        ("empty", MEMBER),
        ("admin", set(CALLS) - {Right.GOLDEN_VOLUMES}),
        ("hypervisor", {Right.CONNECTION}),
        ("developer", set()),
    ],
)
@ensureDeferred
async def test_roles_give_rights(daemon: Running, token: str, expected: set[Right]) -> None:
    assert await allowed(daemon, token) == expected


@ensureDeferred
async def test_what_was_shown_to_one_is_not_shown_to_another(daemon: Running) -> None:
    # The answer is cached.
    assert (await daemon.call("GET", "os-volumes", token="member")).status == 200
    assert (await daemon.call("GET", "os-volumes", token="developer")).status == 403


@ensureDeferred
async def test_the_quota_of_others_is_for_who_sets_it(daemon: Running) -> None:
    path = f"os-quota-sets/{OTHER_TENANT}"
    assert (await daemon.call("GET", path, token="member")).status == 403
    assert (await daemon.call("GET", path, token="admin")).status == 200


@pytest.mark.parametrize(
    ("user", "password", "project", "expected"),
    [
        ("ann", PASSWORD, TENANT, set(CALLS)),
        ("ann", PASSWORD, OTHER_TENANT, MEMBER),
        ("bob", BOBS, OTHER_TENANT, MEMBER),
    ],
)
@ensureDeferred
async def test_who_logs_in_to_bootvol_itself(
    tmp_path: Path, user: str, password: str, project: str, expected: set[Right]
) -> None:
    who = {"name": user, "domain": {"id": "default"}, "password": password}
    auth = {
        "identity": {"methods": ["password"], "password": {"user": who}},
        "scope": {"project": {"id": project}},
    }
    daemon = Running(tmp_path, identity=PEOPLE)
    try:
        login = await daemon.request("POST", "/identity/v3/auth/tokens", {"auth": auth}, None)
        token = login.headers["x-subject-token"]
        assert await allowed(daemon, token, project) == expected
    finally:
        await daemon.stop()
