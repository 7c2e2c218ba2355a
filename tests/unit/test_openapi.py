"""The API's descriptions: complete, valid, and equal to the served operations."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import attrs
import pytest

from bootvol.api.application import Application
from bootvol.api.cinder import dialect as cinder
from bootvol.api.dialects import Dialect, Incoming, Route
from bootvol.api.glance import dialect as glance
from bootvol.api.keystone import dialect as keystone
from bootvol.api.nova.dialect import NOVA, description
from bootvol.api.operations import document as declared_document
from bootvol.lifecycle import POWERING, Status

#: The documents of all dialects.
DOCUMENTS: dict[str, tuple[dict[str, Any], tuple[Dialect[Any], ...]]] = {
    "nova": (description(), (NOVA,)),
    "identity": (keystone.description(), keystone.KEYSTONE),
    "images": (glance.description(), (glance.GLANCE,)),
    "volumes": (cinder.description(), (cinder.CINDER,)),
}
every_document = pytest.mark.parametrize(
    ("document", "dialects"), DOCUMENTS.values(), ids=DOCUMENTS.keys()
)


def operations(document: dict[str, Any] | None = None) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the described operations, by method and path."""
    return {
        (method.upper(), path): operation
        for path, methods in (document or description())["paths"].items()
        for method, operation in methods.items()
    }


def shown(dialect: Dialect[Any], rule: str) -> str:
    """Return a rule of a dialect's application as a path of the OpenAPI document."""
    path = re.sub("<([a-z_]+)>", r"{\1}", rule)
    prefix = dialect.prefixes[0]
    if not prefix:
        return path
    return f"/{prefix}" if path == "/" else f"/{prefix}{path}"


def first_version(dialect: Dialect[Any]) -> Iterator[Route]:
    """Yield the routes of each operation's first version."""
    return (
        route
        for route in dialect.routes()
        if route.version == dialect.versions_of(route.declared)[0]
    )


@every_document
def test_names_of_schemas_are_short(
    document: dict[str, Any], dialects: tuple[Dialect[Any], ...]
) -> None:
    """Of two models with the same name, the document would show their modules."""
    assert not [name for name in document["components"]["schemas"] if "__" in name]


@every_document
def test_exactly_what_is_served_is_described(
    document: dict[str, Any], dialects: tuple[Dialect[Any], ...]
) -> None:
    nothing: Any = None
    served = {
        (method, shown(dialect, rule.rule))
        for dialect in dialects
        for rule in Application(dialect, nothing).klein.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD"}
    }
    later = {
        (getattr(route.declared, "method", "GET"), shown(dialect, route.rule))
        for dialect in dialects
        for route in {*dialect.routes()} - {*first_version(dialect)}
    }
    described = operations(document).keys()
    assert described <= served
    assert served - described == later


@every_document
def test_every_reference_leads_somewhere_and_every_part_is_used(
    document: dict[str, Any], dialects: object
) -> None:
    def references(value: Any) -> set[str]:
        if isinstance(value, list):
            return {found for each in value for found in references(each)}
        if isinstance(value, dict):
            own = {value["$ref"]} if "$ref" in value else set()
            return own.union(*(references(each) for each in value.values()))
        return set()

    parts = document["components"]
    there = {
        f"#/components/{kind}/{name}" for kind in ("schemas", "responses") for name in parts[kind]
    }
    assert references(document) == there


@every_document
def test_names_of_operations_differ(document: dict[str, Any], dialects: object) -> None:
    names = [operation["operationId"] for operation in operations(document).values()]
    assert len(names) == len(set(names))


#: The statuses that any call may answer.
ALWAYS = {400, 401, 403, 413, 500, 503}


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "os-volumes", {200, *ALWAYS}),
        ("GET", "os-volumes/{volume_id}", {200, 404, *ALWAYS}),
        ("POST", "os-volumes", {200, 404, 422, *ALWAYS}),
        ("DELETE", "os-volumes/{volume_id}", {202, 404, *ALWAYS}),
        ("GET", "golden-volumes", {200, *ALWAYS}),
    ],
)
def test_each_call_says_what_may_become_of_it(method: str, path: str, expected: set[int]) -> None:
    responses = operations()[method, f"/v1.1/{{tenant}}/{path}"]["responses"]
    assert set(map(int, responses)) == expected


def test_only_documents_need_no_token() -> None:
    for (_, path), operation in operations().items():
        assert ("{tenant}" in path) is (operation.get("security") is None)
    for document, _ in DOCUMENTS.values():
        assert document["security"] == [{"token": []}]


def test_only_documents_and_log_ins_of_the_identity_api_need_no_token() -> None:
    found = operations(keystone.description())
    needy = {key for key, operation in found.items() if operation.get("security") is None}
    assert needy == {
        ("GET", "/identity/v3/auth/tokens"),
        ("DELETE", "/identity/v3/auth/tokens"),
        ("GET", "/identity/v3/projects/{project_id}"),
        ("GET", "/identity/v3/auth/catalog"),
        ("GET", "/identity/v3/auth/projects"),
        ("GET", "/identity/v3/projects"),
        ("GET", "/identity/v3/users"),
        ("GET", "/identity/v3/users/{user}"),
        ("GET", "/identity/v3/users/{user}/projects"),
        ("GET", "/v2.0/tenants"),
    }


def test_what_is_shown_is_told_exactly() -> None:
    schemas = description()["components"]["schemas"]
    volume = schemas["BootableShown"]
    assert volume["additionalProperties"] is False
    assert set(volume["required"]) == set(volume["properties"])
    members = volume["properties"]
    assert set(members["status"]["enum"]) == set(Status) - POWERING - {Status.GONE}
    assert members["id"]["anyOf"][0] == {"type": "integer", "minimum": 1, "maximum": 2**31 - 1}
    assert members["displayName"] == {"anyOf": [{"type": "string"}, {"type": "null"}]}
    assert members["sourceImageRef"] == {"type": "string"}
    assert schemas["CreateVolume"].get("additionalProperties") is None, "other keys are ignored"


def test_a_description_is_made_at_the_start() -> None:
    """No caller waits for a description, and no other caller meanwhile.

    Break: `src/bootvol/api/application.py`: `if not document.of_url:` -> `if False:`.
    """
    made: list[str] = []

    @declared_document("openapi_show_description", "/openapi", of_url=False)
    def show(url: str) -> dict[str, Any]:
        """Show a description."""
        made.append(url)
        return {}

    Application(attrs.evolve(keystone.KEYSTONE[-1], groups={"openapi": (show,)}), _admitted)
    assert made == [""]


def _admitted(_: Incoming) -> Any:
    raise AssertionError
