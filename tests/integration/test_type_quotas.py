"""Quotas of single volume types: shown, set, and exact, on databases of both kinds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, gatherResults

from tests.cinder import CALLERS, PEOPLE, ask, made
from tests.daemons import TENANT, Running

SET: Final = f"os-quota-sets/{TENANT}"


@pytest_twisted.async_yield_fixture
async def daemon(tmp_path: Path, state: str) -> AsyncIterator[Running]:
    """A daemon with a database of each kind in turn, and the type ``fast``."""
    daemon = Running(tmp_path, state=state, identity=PEOPLE)
    await ask(daemon, "POST", "types", {"volume_type": {"name": "fast"}}, who="admin")
    yield daemon
    await daemon.stop()


async def limit(daemon: Running, path: str = SET, **bounds: int) -> dict[str, object]:
    """Set limits; return the whole quota."""
    entity = "quota_class_set" if "class" in path else "quota_set"
    answer = await ask(daemon, "PUT", path, {entity: bounds}, who="admin")
    assert answer.status == 200, answer.body
    return dict(answer.json[entity])


async def refused(daemon: Running, path: str, body: object, who: str = "member") -> str:
    """Send a request that exceeds a quota; return the reason."""
    answer = await ask(daemon, "POST", path, body, who=who)
    assert answer.status == 413, answer
    return str(answer.json["overLimit"]["message"])


@ensureDeferred
async def test_no_way_leads_beyond_the_quota_of_a_type(daemon: Running) -> None:
    """Break: `src/bootvol/service/replacements.py`: `self._quotas.check_retype(db, volume,
    volume_type)` -> `pass`
    """
    # The default counts where the project has no limit of its own.
    await limit(daemon, "os-quota-class-sets/default", volumes_fast=9, gigabytes_fast=4)
    shown = await limit(daemon, volumes_fast=1, snapshots_fast=1, volumes___DEFAULT__=2)
    kinds = ("volumes_fast", "gigabytes_fast", "snapshots_fast", "volumes___DEFAULT__", "volumes")
    assert [shown[name] for name in kinds] == [1, 4, 1, 2, 10]
    # One of many requests at once gets the volume.
    body = {"volume": {"size": 1, "volume_type": "fast"}}
    answers = await gatherResults(
        [Deferred.fromCoroutine(ask(daemon, "POST", "volumes", body)) for _ in range(4)]
    )
    assert sorted(each.status for each in answers) == [202, 413, 413, 413]
    assert await refused(daemon, "volumes", body) == (
        "VolumeLimitExceeded: Maximum number of volumes allowed (1) exceeded for quota"
        " 'volumes_fast'."
    )
    fast = next(each.json["volume"]["id"] for each in answers if each.status == 202)
    plain = await made(daemon, "volume", size=2)
    retype = {"os-retype": {"new_type": "fast"}}
    await refused(daemon, f"volumes/{plain}/action", retype)
    assert await refused(daemon, f"volumes/{fast}/action", {"os-extend": {"new_size": 5}}) == (
        "VolumeSizeExceedsAvailableQuota: Requested volume or snapshot exceeds allowed"
        " gigabytes_fast quota. Requested 4G, quota is 4G and 1G has been consumed."
    )
    await made(daemon, "snapshot", volume_id=fast)
    again = {"snapshot": {"volume_id": fast}}
    assert "number of snapshots allowed (1)" in await refused(daemon, "snapshots", again)
    await made(daemon, "volume", size=1)
    await refused(daemon, "volumes", {"volume": {"size": 1}})
    # The type keeps its limits under a new name, and loses them with the type.
    types = (await ask(daemon, "GET", "types", who="admin")).json["volume_types"]
    uuid = next(each["id"] for each in types if each["name"] == "fast")
    renamed = {"volume_type": {"name": "faster"}}
    assert (await ask(daemon, "PUT", f"types/{uuid}", renamed, who="admin")).status == 200
    usage = (await ask(daemon, "GET", f"{SET}?usage=True")).json["quota_set"]
    assert usage["volumes_faster"] == {"limit": 1, "in_use": 1, "reserved": 0}
    assert usage["gigabytes_faster"] == {"limit": 4, "in_use": 2, "reserved": 0}
    assert usage["snapshots_faster"]["in_use"] == 1
    defaults = (await ask(daemon, "GET", f"{SET}/defaults")).json["quota_set"]
    assert (defaults["volumes_faster"], defaults["gigabytes_faster"]) == (9, 4)
    # Another project takes a volume within its own limits only.
    await limit(daemon, f"os-quota-sets/{CALLERS['other'][1]}", volumes_faster=0)
    offer = {"transfer": {"volume_id": fast, "no_snapshots": True}}
    transfer = (await ask(daemon, "POST", "volume-transfers", offer)).json["transfer"]
    accept = {"accept": {"auth_key": transfer["auth_key"]}}
    await refused(daemon, f"volume-transfers/{transfer['id']}/accept", accept, "other")
    # A project without limits of its own has the default again.
    assert (await ask(daemon, "DELETE", SET, who="admin")).status == 200
    assert (await ask(daemon, "GET", SET)).json["quota_set"]["volumes_faster"] == 9
    odd = {"quota_set": {"volumes_faster": -2}}
    assert (await ask(daemon, "PUT", SET, odd, who="admin")).status == 400
    odd = {"quota_set": {"volumes_fast": 1}}
    assert (await ask(daemon, "PUT", SET, odd, who="admin")).status == 400
