"""OpenAPI 3.1 documents, made of the declarations of operations, so always up to date."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from importlib.metadata import version
from types import NoneType
from typing import Any, Final, Literal

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core.core_schema import TypedDictSchema

from bootvol.api.dialects import AnyDialect, Route
from bootvol.api.operations import JSON, Admission, Declared, Document, Operation
from bootvol.jsons import JsonObject

#: Schemas of parameters, and the scheme of tokens.
_TENANT: Final = {"type": "string", "description": "The token's own."}
COUNT: Final = {"type": "integer", "minimum": 0}
_COUNTED: Final = frozenset({"limit", "offset"})
_TOKEN: Final = {"type": "apiKey", "in": "header", "name": "X-Auth-Token"}


def exactly(properties: JsonObject) -> JsonObject:
    """Return the schema of an object with exactly these members."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def describe(title: str, about: str, *dialects: AnyDialect) -> JsonObject:
    """Return the OpenAPI document of some dialects.

    :param about: the description of the API.
    """
    schemas = _Schemas(dialects)
    paths: dict[str, JsonObject] = {}
    for is_document in (True, False):
        for dialect in dialects:
            for route in _shown(dialect):
                declared = route.declared
                if isinstance(declared, Operation) is is_document:
                    continue
                method = declared.method.lower() if isinstance(declared, Operation) else "get"
                shown = _operation(dialect, route, schemas)
                paths.setdefault(_path(dialect, route), {})[method] = shown
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version("bootvol"), "description": about},
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": _TOKEN},
            "schemas": schemas.definitions,
            "responses": {
                f"{dialect.faults.name}{status}": {
                    "description": HTTPStatus(status).phrase,
                    "content": {"application/json": {"schema": dialect.faults.schema(status)}},
                }
                for dialect in dialects
                for status in sorted(frozenset().union(*map(dialect.refusals, dialect.operations)))
            },
        },
    }


def _shown(dialect: AnyDialect) -> Iterator[Route]:
    """Yield the routes of a dialect, in the first version of each operation."""
    first = {each: dialect.versions_of(each)[0] for each in dialect.declared}
    return (route for route in dialect.routes() if route.version == first[route.declared])


def _path(dialect: AnyDialect, route: Route) -> str:
    prefix = "/" + dialect.prefixes[0] if dialect.prefixes[0] else ""
    rule = "" if prefix and route.rule == "/" else route.rule
    return re.sub("<([a-z_]+)>", r"{\1}", prefix + rule)


class _Terse(GenerateJsonSchema):
    """A schema generator: replies have only the declared members, and members have no titles."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def typed_dict_schema(self, schema: TypedDictSchema) -> JsonSchemaValue:
        return {"additionalProperties": False, **super().typed_dict_schema(schema)}


class _Schemas:
    """The schemas of all bodies; a schema with a name is defined once."""

    def __init__(self, dialects: Sequence[AnyDialect]) -> None:
        declared = [each for dialect in dialects for each in dialect.declared]
        documents = [each for each in declared if isinstance(each, Document)]
        operations = [each for each in declared if isinstance(each, Operation)]
        modes: list[tuple[Literal["validation", "serialization"], Any]] = [
            *(("serialization", each.reply) for each in (*documents, *operations)),
            *(("validation", each.body) for each in operations if each.body is not None),
            *(("validation", body) for each in operations for body in each.also_takes.values()),
        ]
        self._schemas, defined = TypeAdapter.json_schemas(
            [(kind, mode, TypeAdapter(kind)) for mode, kind in modes],
            ref_template="#/components/schemas/{model}",
            schema_generator=_Terse,
        )
        self.definitions: JsonObject = defined.get("$defs", {})

    def of_reply(self, declared: Declared) -> JsonSchemaValue:
        return self._schemas[declared.reply, "serialization"]

    def of_body(self, body: type[BaseModel]) -> JsonSchemaValue:
        return self._schemas[body, "validation"]


def _operation(dialect: AnyDialect, route: Route, schemas: _Schemas) -> JsonObject:
    declared = route.declared
    shown = {
        "operationId": declared.paths[route.path],
        "tags": [next(tag for tag, group in dialect.groups.items() if declared in group)],
        "summary": declared.summary,
        "responses": {str(declared.status): _reply(declared, schemas)},
    }
    if not isinstance(declared, Operation):
        return {**shown, "security": []}
    shown |= _of_operation(dialect, declared, route, schemas)
    if declared.admission is Admission.NOBODY:
        shown["security"] = []
    return shown


def _of_operation(
    dialect: AnyDialect, operation: Operation, route: Route, schemas: _Schemas
) -> JsonObject:
    responses = {str(operation.status): _reply(operation, schemas)}
    if operation.empty is not None:
        responses[str(operation.empty)] = {"description": HTTPStatus(operation.empty).phrase}
    for status in sorted(dialect.refusals(operation)):
        name = f"{dialect.faults.name}{status}"
        responses[str(status)] = {"$ref": f"#/components/responses/{name}"}
    shown: JsonObject = {
        "parameters": list(_parameters(dialect, operation, route)),
        "responses": responses,
    }
    if operation.body is not None:
        body = schemas.of_body(operation.body)
        if operation.entity is not None:
            body = {
                "type": "object",
                "properties": {operation.entity: body},
                "required": [operation.entity],
            }
        content = {operation.takes: {"schema": body}}
        for media, other in operation.also_takes.items():
            content[media] = {"schema": schemas.of_body(other)}
        shown["requestBody"] = {"required": True, "content": content}
    elif operation.streamed:
        shown["requestBody"] = {"required": True, "content": {operation.takes: {}}}
    return shown


def _parameters(dialect: AnyDialect, operation: Operation, route: Route) -> Iterator[JsonObject]:
    for name in re.findall("<([a-z_]+)>", route.rule):
        if name == "tenant":
            schema: JsonSchemaValue = _TENANT
        else:
            kind = dialect.id_type if operation.hints[name] is int else str
            schema = TypeAdapter(kind).json_schema()
        yield {"name": name, "in": "path", "required": True, "schema": schema}
    for name in (*(dialect.page_parameters if operation.paged else ()), *operation.query):
        schema = COUNT if name in _COUNTED else {"type": "string"}
        yield {"name": name, "in": "query", "schema": schema}
    for name in operation.headers:
        yield {"name": name, "in": "header", "required": True, "schema": {"type": "string"}}


def _reply(declared: Declared, schemas: _Schemas) -> JsonObject:
    shown: JsonObject = {"description": HTTPStatus(declared.status).phrase}
    if isinstance(declared, Operation) and declared.gives != JSON:
        shown["content"] = {declared.gives: {}}
    elif declared.reply is not NoneType:
        shown["content"] = {"application/json": {"schema": schemas.of_reply(declared)}}
    return shown
