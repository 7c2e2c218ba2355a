"""The OpenAPI 3.1 document, made of the declarations of calls, so always up to date."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from http import HTTPStatus
from importlib.metadata import version
from types import NoneType
from typing import Any, Final, Literal

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core.core_schema import TypedDictSchema

from bootvol.api.nova import views
from bootvol.api.nova.calls import CALLS, DOCUMENTS, Call, Document, document
from bootvol.api.nova.faults import FAULTS

_ABOUT: Final = """\
HP's Bootable Volume API of 2012 and its parent, Nova's volume API v1.1.
`/v2/{tenant}/…` is the same as `/v1.1/{tenant}/…`, with uuids for ids; every path may end in
`.json`.
A path that is not here is a 404, or 300 with choices if it names no version."""

#: Schemas of parameters, and the scheme of tokens.
_TENANT: Final = {"type": "string", "description": "The token's own."}
_COUNT: Final = {"type": "integer", "minimum": 0}
_TOKEN: Final = {"type": "apiKey", "in": "header", "name": "X-Auth-Token"}


@document("/openapi", of_url=False)
def show_description(_url: str) -> dict[str, Any]:
    """Describe the API in OpenAPI 3.1."""
    return description()


@cache
def description() -> dict[str, Any]:
    """Return the OpenAPI document of all declared calls.

    All callers get the same cached object, so they must not change it.
    """
    schemas = _Schemas()
    paths: dict[str, dict[str, Any]] = {}
    for each in DOCUMENTS:
        for path, operation in _operations(each, schemas):
            paths.setdefault(path, {})["get"] = {**operation, "security": []}
    for call in CALLS:
        for path, operation in _operations(call, schemas):
            paths.setdefault(f"/{call.bases[0]}/{{tenant}}/{path}", {})[call.method.lower()] = (
                operation
            )
    faults = frozenset[int]().union(*(call.faults for call in CALLS))
    return {
        "openapi": "3.1.0",
        "info": {"title": "bootvol", "version": version("bootvol"), "description": _ABOUT},
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": _TOKEN},
            "schemas": schemas.definitions,
            "responses": {str(status): _fault(status) for status in sorted(faults)},
        },
    }


class _Terse(GenerateJsonSchema):
    """A schema generator: replies have only the declared members, and members have no titles."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def typed_dict_schema(self, schema: TypedDictSchema) -> JsonSchemaValue:
        return {**super().typed_dict_schema(schema), "additionalProperties": False}


class _Schemas:
    """The schemas of all bodies; a schema with a name is defined once."""

    def __init__(self) -> None:
        modes: list[tuple[Literal["validation", "serialization"], Any]] = [
            *(("serialization", each.reply) for each in (*DOCUMENTS, *CALLS)),
            *(("validation", call.body) for call in CALLS if call.body is not None),
        ]
        self._schemas, defined = TypeAdapter.json_schemas(
            [(kind, mode, TypeAdapter(kind)) for mode, kind in modes],
            ref_template="#/components/schemas/{model}",
            schema_generator=_Terse,
        )
        self.definitions: dict[str, Any] = defined["$defs"]

    def of_reply(self, each: Document) -> JsonSchemaValue:
        return self._schemas[each.reply, "serialization"]

    def of_body(self, call: Call) -> JsonSchemaValue:
        return self._schemas[call.body, "validation"]


def _operations(each: Document, schemas: _Schemas) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield an operation for each path."""
    room = each.answer.__module__.rpartition(".")[2]
    name = f"{room}_{each.answer.__name__}"
    for path in each.paths:
        operation = {
            "operationId": name,
            "tags": [room],
            "summary": each.summary,
            "responses": {"200": _reply(each, schemas)},
        }
        if isinstance(each, Call):
            operation |= _of_call(each, path, schemas)
        yield re.sub("<([a-z_]+)>", r"{\1}", path), operation
        name = f"{name}_again"


def _of_call(call: Call, path: str, schemas: _Schemas) -> dict[str, Any]:
    responses = {str(call.status): _reply(call, schemas)}
    if call.empty is not None:
        responses[str(call.empty)] = {"description": HTTPStatus(call.empty).phrase}
    for status in sorted(call.faults):
        responses[str(status)] = {"$ref": f"#/components/responses/{status}"}
    found: dict[str, Any] = {"parameters": list(_parameters(call, path)), "responses": responses}
    if call.body is not None:
        body = schemas.of_body(call)
        if call.entity is not None:
            body = {
                "type": "object",
                "properties": {call.entity: body},
                "required": [call.entity],
            }
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return found


def _parameters(call: Call, path: str) -> Iterator[dict[str, Any]]:
    yield {"name": "tenant", "in": "path", "required": True, "schema": _TENANT}
    for name in re.findall("<([a-z_]+)>", path):
        kind = views.Id if call.hints[name] is int else str
        yield {
            "name": name,
            "in": "path",
            "required": True,
            "schema": TypeAdapter(kind).json_schema(),
        }
    if call.paged:
        for name in ("limit", "offset"):
            yield {"name": name, "in": "query", "schema": _COUNT}
    for name in call.query:
        schema = _COUNT if name in {"limit", "offset"} else {"type": "string"}
        yield {"name": name, "in": "query", "schema": schema}


def _reply(each: Document, schemas: _Schemas) -> dict[str, Any]:
    status = each.status if isinstance(each, Call) else HTTPStatus.OK
    told: dict[str, Any] = {"description": HTTPStatus(status).phrase}
    if each.reply is not NoneType:
        told["content"] = {"application/json": {"schema": schemas.of_reply(each)}}
    return told


def _fault(status: int) -> dict[str, Any]:
    content: dict[str, Any] = {"message": {"type": "string"}, "code": {"const": status}}
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        content["retryAfter"] = _COUNT
    inner = _object(content)
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        # The details name the rate limit.
        inner["properties"]["details"] = {"type": "string"}
    told = _object({FAULTS[status]: inner})
    return {
        "description": HTTPStatus(status).phrase,
        "content": {"application/json": {"schema": told}},
    }


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an object with exactly these members."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
