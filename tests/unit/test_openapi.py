"""The API's description: complete, valid, and equal to the served calls."""

from __future__ import annotations

import re
from typing import Any

import pytest

from bootvol.api.nova.dialect import NOVA, application, description
from bootvol.lifecycle import POWERING, Status


def operations() -> dict[tuple[str, str], dict[str, Any]]:
    """Return the described operations, by method and path."""
    return {
        (method.upper(), path): operation
        for path, methods in description()["paths"].items()
        for method, operation in methods.items()
    }


def test_exactly_what_is_served_is_described() -> None:
    nothing: Any = None
    rules = application(nothing, nothing, nothing, nothing).klein.url_map.iter_rules()
    served = {
        (method, re.sub("<([a-z_]+)>", r"{\1}", rule.rule))
        for rule in rules
        for method in (rule.methods or set()) - {"HEAD"}
    }
    below = {
        (each.method, version, re.sub("<([a-z_]+)>", r"{\1}", NOVA.rule(each, version, path)))
        for each in NOVA.operations
        for version in NOVA.versions_of(each)
        for path in each.paths
    }
    described = {(method, path) for method, path in operations() if "{tenant}" in path}
    first = {(each.method, NOVA.versions_of(each)[0]) for each in NOVA.operations}
    assert described <= {
        (method, path) for method, version, path in below if (method, version) in first
    }
    assert served == {(method, path) for method, _, path in below} | operations().keys()
    for each in NOVA.operations:
        for path in each.paths:
            rule = NOVA.rule(each, NOVA.versions_of(each)[0], path)
            assert (each.method, re.sub("<([a-z_]+)>", r"{\1}", rule)) in described


def test_every_reference_leads_somewhere_and_every_part_is_used() -> None:
    def references(value: Any) -> set[str]:
        if isinstance(value, list):
            return {found for each in value for found in references(each)}
        if isinstance(value, dict):
            own = {value["$ref"]} if "$ref" in value else set()
            return own.union(*(references(each) for each in value.values()))
        return set()

    parts = description()["components"]
    there = {
        f"#/components/{kind}/{name}" for kind in ("schemas", "responses") for name in parts[kind]
    }
    assert references(description()) == there


def test_names_of_operations_differ() -> None:
    names = [operation["operationId"] for operation in operations().values()]
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
    assert description()["security"] == [{"token": []}]


def test_what_is_shown_is_told_exactly() -> None:
    schemas = description()["components"]["schemas"]
    volume = schemas["BootableShown"]
    assert volume["additionalProperties"] is False
    assert set(volume["required"]) == set(volume["properties"])
    shown = volume["properties"]
    assert set(shown["status"]["enum"]) == set(Status) - POWERING - {Status.GONE}
    assert shown["id"]["anyOf"][0] == {"type": "integer", "minimum": 1, "maximum": 2**31 - 1}
    assert shown["displayName"] == {"anyOf": [{"type": "string"}, {"type": "null"}]}
    assert shown["sourceImageRef"] == {"type": "string"}
    assert schemas["CreateVolume"].get("additionalProperties") is None, "other keys are ignored"
