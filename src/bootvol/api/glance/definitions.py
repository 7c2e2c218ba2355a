"""Metadata definitions: bootvol has none, as a Glance without loaded definitions."""

from __future__ import annotations

from typing_extensions import TypedDict

from bootvol.api.context import RequestContext
from bootvol.api.operations import operation
from bootvol.errors import Forbidden
from bootvol.jsons import JsonObject


class Namespaces(TypedDict):
    """The namespaces of definitions."""

    namespaces: list[JsonObject]
    first: str
    schema: str


class ResourceTypes(TypedDict):
    """The types of resources with definitions."""

    resource_types: list[JsonObject]


@operation("images_list_namespaces", "GET", "metadefs/namespaces")
async def list_namespaces(context: RequestContext) -> Namespaces:
    """List the namespaces of metadata definitions: none."""
    return {
        "namespaces": [],
        "first": "/v2/metadefs/namespaces",
        "schema": "/v2/schemas/metadefs/namespaces",
    }


@operation("images_create_namespace", "POST", "metadefs/namespaces", status=201)
async def create_namespace(context: RequestContext) -> JsonObject:
    """Refuse a namespace of metadata definitions."""
    raise Forbidden("This service keeps no metadata definitions.")


@operation("images_list_resource_types", "GET", "metadefs/resource_types")
async def list_resource_types(context: RequestContext) -> ResourceTypes:
    """List the types of resources with metadata definitions: none."""
    return {"resource_types": []}


OPERATIONS = (list_namespaces, create_namespace, list_resource_types)
