"""Rate limits over a socket."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred

from tests.daemons import OTHER_TENANT, TENANT, Running

LIMITS = """
[[rate_limits]]
verb = "GET"
uri = "*/os-volumes"
regex = "^/os-volumes$"
value = 2
unit = "DAY"

[[rate_limits]]
verb = "POST"
value = 3
unit = "HOUR"

[[rate_limits]]
verb = "DELETE"
value = 5
unit = "SECOND"
"""


@pytest_twisted.async_yield_fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Running]:
    """A daemon with limits longer than any test."""
    daemon = Running(tmp_path, LIMITS)
    yield daemon
    await daemon.stop()


async def rates(daemon: Running) -> Any:
    """Return the shown limits."""
    return (await daemon.call("GET", "limits")).json["limits"]["rate"]


@ensureDeferred
async def test_who_calls_too_often_is_told_when_to_come_again(daemon: Running) -> None:
    """A call beyond a limit is refused, for one tenant, with the time to wait.

    Break: `src/bootvol/service/rates.py`: `if longest is not None and longest.wait:` -> `if longest
    is None:`.
    """
    for path in ("v1.1/{}/os%2Dvolumes.json", "v2/{}/os-volumes"):
        assert (await daemon.request("GET", f"/{path.format(TENANT)}")).status == 200
    answer = await daemon.call("GET", "os-volumes")
    assert answer.status == 413
    content = answer.json["overLimit"]
    wait = content.pop("retryAfter")
    assert 0 < wait <= 43200
    assert answer.headers["retry-after"] == str(wait)
    assert content == {
        "code": 413,
        "message": "This request was rate-limited.",
        "details": "Only 2 GET request(s) can be made to */os-volumes every day.",
    }
    # Other calls, and other tenants, continue.
    assert (await daemon.call("GET", "os-volumes/detail")).status == 200
    other = await daemon.request("GET", f"/v1.1/{OTHER_TENANT}/os-volumes", token="bob")
    assert other.status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/v1.1/{}/os-volumes?x",
        "/v1.1/{}/os-volumes?",
        "//v1.1/{}/os-volumes",
        "/v1.1/{}//os-volumes",
        "/v1.1/{}/os-volumes/",
        "/v1.1/{}/os-volumes.json?limit=1",
        "/v1.1/{}/os-volumes%3F",
        "/v1.1/{}/%2Fos-volumes",
        "/v1.1/{}/os-volumes%23",
        "/v1.1%2F{}/os-volumes",
        "/v2/{}/volumes",
        "/v1/{}/volumes?limit=5",
        "/v1.1/{}/./os-volumes",
        "/v2/{}/os%2dvolumes.json",
        "/volume/v3/{}/volumes",
        "/volume/v3/volumes?limit=1",
    ],
)
@ensureDeferred
async def test_no_spelling_leads_around_a_limit(daemon: Running, path: str) -> None:
    """No spelling of a path gets more calls than the limit allows.

    Break: `src/bootvol/api/admission.py`: `self._rate_paths(incoming.path,
    incoming.segments)` -> `[request.path.decode().partition(str(incoming.tenant))[2].lstrip("/")]`.
    """
    statuses = [(await daemon.request("GET", path.format(TENANT))).status for _ in range(5)]
    assert 200 not in statuses[2:]


@ensureDeferred
async def test_calls_of_strangers_do_not_count(daemon: Running) -> None:
    for _ in range(5):
        answer = await daemon.request("GET", f"/v1.1/{TENANT}/os-volumes", token="bob")
        assert answer.status == 400
    assert (await daemon.call("GET", "os-volumes")).status == 200


@ensureDeferred
async def test_limits_show_what_is_left(daemon: Running) -> None:
    begun = int(time.time())
    (volumes, others) = await rates(daemon)
    assert (volumes["uri"], volumes["regex"]) == ("*/os-volumes", "^/os-volumes$")
    assert (others["uri"], others["regex"]) == ("*", ".*")
    assert [limit["verb"] for limit in others["limit"]] == ["POST", "DELETE"]
    (limit,) = volumes["limit"]
    at_once = datetime.strptime(limit.pop("next-available"), "%Y-%m-%dT%H:%M:%SZ")
    assert limit == {"verb": "GET", "value": 2, "remaining": 2, "unit": "DAY"}
    assert begun <= at_once.replace(tzinfo=UTC).timestamp() <= time.time()
    for left in (1, 0):
        await daemon.call("GET", "os-volumes")
        (limit,) = (await rates(daemon))[0]["limit"]
        assert limit["remaining"] == left
    later = datetime.strptime(limit["next-available"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert begun + 43200 <= later.timestamp() <= time.time() + 43200


@ensureDeferred
async def test_a_quota_has_no_time_to_wait_for(daemon: Running) -> None:
    answer = await daemon.call("POST", "os-volumes", {"volume": {"size": 5000}})
    assert answer.status == 413
    assert answer.json["overLimit"]["retryAfter"] == 0
    assert "retry-after" not in answer.headers
