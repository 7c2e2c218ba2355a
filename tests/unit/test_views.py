"""The API's answers, compared with the samples of the specification."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest
from pytest_twisted import ensureDeferred
from treq.client import HTTPClient
from treq.testing import RequestTraversalAgent
from twisted.internet.task import Clock
from twisted.web.http_headers import Headers

from bootvol.api.application import Application
from bootvol.api.cache import Answers
from bootvol.api.context import Services
from bootvol.api.door import Door
from bootvol.api.nova import views
from bootvol.api.nova.context import NovaContext
from bootvol.api.nova.dialect import NOVA, application
from bootvol.api.nova.links import BaseUri
from bootvol.api.operations import document
from bootvol.api.root import ApiRoot
from bootvol.lifecycle import Status
from bootvol.model import Attachment, Caller, Image, Import, Phase, Volume
from bootvol.policy import Policy
from bootvol.service.inflight import CallLimits
from bootvol.service.rates import RateLimits
from bootvol.service.volumes import Volumes

GOLDEN = Path(__file__).parent.parent / "golden"

BASE = BaseUri("http://host", "v1.1", "t")

FIRST = Volume(
    id=10,
    name="volume-x",
    tenant="t",
    user="u",
    size_gib=20,
    status=Status.AVAILABLE,
    created_at=datetime(2012, 10, 11, 13, 37, 44, tzinfo=UTC),
    availability_zone="nova",
    backend="b",
    image_id="4",
    display_name="FBSD1",
    attachments=(Attachment(10, "1", "vda"),),
)
SECOND = attrs.evolve(
    FIRST,
    id=11,
    size_gib=10,
    display_name=None,
    created_at=datetime(2012, 10, 31, 15, 17, 54, 999999, UTC),
    attachments=(),
)


def test_the_list_of_the_specification() -> None:
    sample = json.loads((GOLDEN / "hp-bootable-volumes-list.json").read_text())
    # Attachments, and this status, come with servers.
    sample["volumes"][0]["status"] = "available"
    assert {"volumes": [views.bootable_volume(each, BASE) for each in (FIRST, SECOND)]} == sample


@ensureDeferred
async def test_the_server_error_of_the_specification() -> None:
    class Broken(Volumes):
        def __init__(self) -> None:
            pass

        async def listed(self, *_: object, **__: object) -> list[Volume]:
            raise RuntimeError("secret")

    class Anybody:
        async def authenticate(self, token: str) -> Caller:
            return Caller("u", "t", frozenset({"reader"}))

    other: Any = None  # unused by the call
    no_limits = RateLimits([], Clock())
    unused = dict.fromkeys((each.name for each in attrs.fields(Services)), other)
    services = Services(**{**unused, "volumes": Broken(), "rates": no_limits})

    async def same() -> None:
        return None

    door = Door(Anybody(), CallLimits.of(9), Clock())  # type: ignore[arg-type]
    api = application(door, Policy(), services, Answers(same))
    agent = RequestTraversalAgent(ApiRoot(*api.mounts))
    asked = HTTPClient(agent).get(
        "http://x/v1.1/t/hp-bootable-volumes", headers=Headers({"X-Auth-Token": ["x"]})
    )
    agent.flush()
    answer = await asked
    assert answer.code == 500
    content = await answer.content()
    sample = (GOLDEN / "hp-bootable-volumes-fault-500.json").read_text()
    assert json.loads(content) == json.loads(sample)


@ensureDeferred
async def test_links_begin_with_the_public_url() -> None:
    other: Any = None  # unused by the call
    mounts = application(other, other, other, other).mounts
    for public_url, shown in ((None, "http://host:1"), ("https://out/x", "https://out/x")):
        agent = RequestTraversalAgent(ApiRoot(*mounts, public_url=public_url))
        asked = HTTPClient(agent).get("http://host:1/v1.1/")
        agent.flush()
        version = json.loads(await (await asked).content())["version"]
        assert version["links"] == [{"rel": "self", "href": f"{shown}/v1.1/"}]


@ensureDeferred
async def test_documents_are_rendered_once() -> None:
    """A document with links is rendered once for each URL of the API's root.

    Break: `src/bootvol/api/application.py`: `@lru_cache(_URLS)` -> `@lru_cache(0)`
    """
    rendered: list[str] = []

    @document("a", "/a")
    def with_links(url: str) -> str:
        rendered.append(url)
        return url

    @document("b", "/b", of_url=False)
    def without_links(url: str) -> str:
        rendered.append(url)
        return url

    dialect: Any = attrs.evolve(NOVA, groups={"": (with_links, without_links)})
    other: Any = None  # unused by documents
    agent = RequestTraversalAgent(ApiRoot(*Application[NovaContext](dialect, other).mounts))
    for path in ("a", "b"):
        for host in ("h", "i", "h", "i"):
            asked = HTTPClient(agent).get(f"http://{host}/{path}")
            agent.flush()
            assert await (await asked).json() == ("" if path == "b" else f"http://{host}")
    # A document without links is rendered at the start.
    assert rendered == ["", "http://h", "http://i"]


IMPORT = Import(1, Image("4", "s", "n"))


@pytest.mark.parametrize(
    ("done", "total", "rate", "eta"),
    [
        (0, None, 0, None),
        (0, 100, 0, None),
        (0, 100, 30, 4),
        (100, 100, 0, 0),
        (100, 100, 30, 0),
        (50, None, 10, None),
    ],
)
def test_the_time_left_is_said_when_it_is_known(
    done: int, total: int | None, rate: int, eta: int | None
) -> None:
    shown = views.progress(
        attrs.evolve(
            IMPORT,
            phase=Phase.DOWNLOADING,
            bytes_done=done,
            bytes_total=total,
            bytes_per_second=rate,
        )
    )
    assert shown["etaSeconds"] == eta


@pytest.mark.parametrize(("changed_at", "shown"), [(None, None), (0.0, "1970-01-01T00:00:00Z")])
def test_an_image_shows_its_times_whatever_is_known(
    changed_at: float | None, shown: str | None
) -> None:
    view = views.image(Image("i", "s", "n", changed_at=changed_at), BASE)
    assert (view["created"], view["updated"]) == (shown, shown)
