"""Who may do what: the table ``[policy]``, whatever says who asks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred

from bootvol.policy import Right
from tests.daemons import OTHER_TENANT, TENANT, Running

ROLES = ("reader", "member", "_member_", "admin", "hypervisor", "developer")
IDENTITY = "".join(
    f'[[identity.tokens]]\ntoken = "{role}"\ntenant = "{TENANT}"\nuser = "u"\nroles = ["{role}"]\n'
    for role in ROLES
) + (
    f'[[identity.tokens]]\ntoken = "without"\ntenant = "{TENANT}"\nuser = "u"\n'
    f'[[identity.tokens]]\ntoken = "empty"\ntenant = "{TENANT}"\nuser = "u"\nroles = []\n'
)
#: For each right a call that needs it, and what becomes of that where it is given.
CALLS: dict[Right, tuple[str, str, object, int]] = {
    Right.READ: ("GET", "os-volumes", None, 200),
    Right.WRITE: ("DELETE", "os-volumes/99", None, 404),
    Right.CONNECTION: ("GET", "os-volumes/99/connection", None, 404),
    Right.VOLUME_TYPES: ("DELETE", "os-volume-types/99", None, 404),
    Right.QUOTAS: ("PUT", f"os-quota-sets/{TENANT}", {"quota_set": {}}, 200),
    Right.GOLDEN_VOLUMES: ("GET", "golden-volumes", None, 200),
}
MEMBER = {Right.READ, Right.WRITE}


async def allowed(daemon: Running, token: str) -> set[Right]:
    """Return which of the calls a token is good for; the others must be refused."""
    found = set()
    for right, (method, path, body, expected) in CALLS.items():
        answer = await daemon.call(method, path, body, token)
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
    """A daemon whose hypervisors have a role of their own."""
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
    # The answer is kept.
    assert (await daemon.call("GET", "os-volumes", token="member")).status == 200
    assert (await daemon.call("GET", "os-volumes", token="developer")).status == 403


@ensureDeferred
async def test_the_quota_of_others_is_for_who_sets_it(daemon: Running) -> None:
    path = f"os-quota-sets/{OTHER_TENANT}"
    assert (await daemon.call("GET", path, token="member")).status == 403
    assert (await daemon.call("GET", path, token="admin")).status == 200
