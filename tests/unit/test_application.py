"""The machine that serves every dialect, with a dialect of the test's own."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import attrs
import pytest
from pydantic import BaseModel
from pytest_twisted import ensureDeferred
from treq.testing import StubTreq
from twisted.web.iweb import IRequest
from typing_extensions import TypedDict

from bootvol.api.application import Application
from bootvol.api.cache import Answers
from bootvol.api.dialects import Dialect, Incoming
from bootvol.api.http import Faults, Reply, read_json
from bootvol.api.openapi import describe
from bootvol.api.operations import Operation, document, operation
from bootvol.api.root import ApiRoot
from bootvol.api.statuses import status_of
from bootvol.errors import BootvolError, NotFound, VolumeNotFound

FIRST = UUID(int=1)
#: The numbers of rows by the ids that clients know.
NUMBERS = {str(FIRST): 1}


class Tea(BaseModel):
    """The object in the request body."""

    sort: str


class TeaShown(TypedDict):
    """The object in the reply."""

    number: int
    sort: str


@attrs.frozen
class TeaContext:
    """The context of a request."""

    owner: str
    served: list[str]


@operation("show", "GET", "teas/<tea_id>", aliases={"cups/<tea_id>": "show_again"}, of_rows=True)
async def show(context: TeaContext, tea_id: int) -> TeaShown:
    """Show a tea."""
    context.served.append(context.owner)
    return {"number": tea_id, "sort": context.owner}


@operation("change", "PUT", "teas/<tea_id>", status=202)
async def change(context: TeaContext, tea_id: int, body: Tea) -> TeaShown:
    """Change a tea."""
    return {"number": tea_id, "sort": body.sort}


@operation("drink", "DELETE", "teas/<tea_id>", versions=("v8",), status=200, empty=204)
async def drink(context: TeaContext, tea_id: int) -> None:
    """Remove a tea."""


@operation("fail", "GET", "fail")
async def fail(context: TeaContext) -> None:
    """Fail with an error that the dialect words differently."""
    raise VolumeNotFound(5)


@document("menu", "/menu", status=300)
def menu(url: str) -> str:
    """Show the URL of the API."""
    return url


async def number(context: TeaContext, operation: Operation, name: str, text: str) -> int:
    """Map an id to the number of a row."""
    if text not in NUMBERS:
        raise NotFound
    return NUMBERS[text]


def reword(operation: Operation, error: BootvolError) -> BootvolError:
    """Hide the id of a missing object."""
    return NotFound("no tea") if isinstance(error, VolumeNotFound) else error


def read(request: IRequest, operation: Operation, model: type[BaseModel]) -> BaseModel:
    """Read the whole body."""
    return model.model_validate(read_json(request))


def key(context: TeaContext, operation: Operation) -> tuple[Hashable, ...]:
    """Return the inputs of a cached reply."""
    return (context.owner,)


def negotiate(request: IRequest) -> Reply | None:
    """Answer unknown paths below one prefix."""
    return Reply({"choices": []}, 300) if request.postpath[0] == b"v7" else None


TEA = Dialect[TeaContext](
    prefixes=("tea", "old/tea"),
    template="/{version}/<tenant>/{path}",
    versions=("v9", "v8"),
    groups={"teas": (show, change, drink, fail), "menu": (menu,)},
    faults=Faults(
        lambda error, status: {"tea": error.message, "status": status},
        lambda status: {"type": "object"},
        # A status of this dialect alone.
        lambda error: 418 if isinstance(error, NotFound) else status_of(error),
    ),
    refusals=lambda operation: frozenset({418}),
    read_body=read,
    argument=number,
    id_type=UUID,
    reword=reword,
    cache_key=key,
    negotiate=negotiate,
)


async def _same() -> int:
    return 1


class House:
    """The application, and a client.

    :ivar served: the owners for whom a handler has run.
    """

    def __init__(self) -> None:
        self.served: list[str] = []
        application = Application(TEA, self._admit, Answers(_same))
        # StubTreq is typed in part: mypy sees none of its methods.
        self._client: Any = StubTreq(ApiRoot(*application.mounts))

    @asynccontextmanager
    async def _admit(self, incoming: Incoming) -> AsyncIterator[TeaContext]:
        owner = incoming.request.getHeader(b"x-owner") or b""
        assert incoming.tenant == "mine"
        yield TeaContext(f"{owner.decode()} {incoming.version}", self.served)

    async def ask(
        self, method: str, path: str, body: object = None, owner: str = "ann"
    ) -> tuple[int, Any]:
        """Send a request; return the status and the value of the JSON body."""
        answer = await self._client.request(
            method,
            f"http://host{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"X-Owner": [owner]},
        )
        content = await answer.content()
        return answer.code, json.loads(content) if content else None


@pytest.fixture
def house() -> House:
    """The application, and a client."""
    return House()


@pytest.mark.parametrize("prefix", ["/tea", "/old/tea"])
@pytest.mark.parametrize("path", ["teas", "cups"])
@ensureDeferred
async def test_all_paths_lead_to_the_operation(house: House, prefix: str, path: str) -> None:
    for version in ("v9", "v8"):
        answer = await house.ask("GET", f"{prefix}/{version}/mine/{path}/{FIRST}.json")
        assert answer == (200, {"number": 1, "sort": f"ann {version}"})


@ensureDeferred
async def test_an_operation_has_its_own_status_and_versions(house: House) -> None:
    path = f"mine/teas/{FIRST}"
    assert await house.ask("PUT", f"/tea/v9/{path}", {"sort": "green"}) == (
        202,
        {"number": 1, "sort": "green"},
    )
    assert await house.ask("DELETE", f"/tea/v8/{path}") == (204, None)
    assert (await house.ask("DELETE", f"/tea/v9/{path}"))[0] == 405


@ensureDeferred
async def test_errors_have_the_words_and_statuses_of_the_dialect(house: House) -> None:
    assert await house.ask("GET", "/tea/v9/mine/fail") == (418, {"tea": "no tea", "status": 418})
    status, body = await house.ask("GET", f"/tea/v9/mine/teas/{UUID(int=2)}")
    assert (status, body["status"]) == (418, 418)
    assert (await house.ask("GET", "/tea/v7/mine"))[0] == 300
    assert (await house.ask("GET", "/tea/v6/mine"))[0] == 418


@ensureDeferred
async def test_replies_from_rows_are_cached_for_each_caller(house: House) -> None:
    for owner in ("ann", "bob", "ann", "bob"):
        status, body = await house.ask("GET", f"/tea/v9/mine/teas/{FIRST}", owner=owner)
        assert (status, body["sort"]) == (200, f"{owner} v9")
    assert house.served == ["ann v9", "bob v9"]


@ensureDeferred
async def test_documents_need_no_admission(house: House) -> None:
    assert await house.ask("GET", "/tea/menu") == (300, "http://host")


def test_the_description_shows_the_first_version_and_the_form_of_ids() -> None:
    described = describe("tea", "", TEA)
    assert set(described["paths"]) == {
        "/tea/v9/{tenant}/teas/{tea_id}",
        "/tea/v9/{tenant}/cups/{tea_id}",
        "/tea/v8/{tenant}/teas/{tea_id}",
        "/tea/v9/{tenant}/fail",
        "/tea/menu",
    }
    shown = described["paths"]["/tea/v9/{tenant}/cups/{tea_id}"]["get"]
    assert shown["operationId"] == "show_again"
    assert shown["tags"] == ["teas"]
    assert [each["schema"].get("format") for each in shown["parameters"]] == [None, "uuid"]
    assert set(shown["responses"]) == {"200", "418"}
