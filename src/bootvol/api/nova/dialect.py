"""Nova's dialect: HP's Bootable Volume API of 2012 and its parent, Nova's volume API v1.1."""

from __future__ import annotations

from functools import cache
from typing import Final

from bootvol.api.admission import Callers
from bootvol.api.application import Application
from bootvol.api.cache import Answers
from bootvol.api.context import Services
from bootvol.api.dialects import Dialect
from bootvol.api.door import Door
from bootvol.api.nova import (
    attachments,
    bootable,
    cached_images,
    cinder,
    extensions,
    flavors,
    images,
    keypairs,
    limits,
    quotas,
    servers,
    snapshots,
    versions,
    views,
    volume_types,
    volumes,
)
from bootvol.api.nova.context import NovaContext, argument, cache_key, read_body, reword
from bootvol.api.nova.faults import NOVA_FAULTS, refusals
from bootvol.api.openapi import describe
from bootvol.api.operations import document
from bootvol.api.rates import counted
from bootvol.jsons import JsonObject
from bootvol.policy import Policy

_ABOUT: Final = """\
HP's Bootable Volume API of 2012 and its parent, Nova's volume API v1.1.
`/v2/{tenant}/…` is the same as `/v1.1/{tenant}/…`, with uuids for ids; every path may end in
`.json`.
A path that is not here is a 404, or 300 with choices if it names no version."""


@document("openapi_show_description", "/openapi", of_url=False)
def show_description(_url: str) -> JsonObject:
    """Describe the API in OpenAPI 3.1."""
    return description()


NOVA: Final = Dialect[NovaContext](
    template="/{version}/<tenant>/{path}",
    versions=versions.VERSIONS,
    groups={
        "openapi": (show_description,),
        "versions": versions.OPERATIONS,
        "attachments": attachments.OPERATIONS,
        "bootable": bootable.OPERATIONS,
        "volume_types": volume_types.OPERATIONS,
        "cinder": cinder.OPERATIONS,
        "extensions": extensions.OPERATIONS,
        "flavors": flavors.OPERATIONS,
        "goldens": cached_images.OPERATIONS,
        "images": images.OPERATIONS,
        "keypairs": keypairs.OPERATIONS,
        "limits": limits.OPERATIONS,
        "quotas": quotas.OPERATIONS,
        "servers": servers.OPERATIONS,
        "snapshots": snapshots.OPERATIONS,
        "volumes": volumes.OPERATIONS,
    },
    faults=NOVA_FAULTS,
    refusals=refusals,
    read_body=read_body,
    argument=argument,
    id_type=views.Id,
    reword=reword,
    page_parameters=("limit", "offset"),
    cache_key=cache_key,
    negotiate=versions.negotiate,
)


@cache
def description() -> JsonObject:
    """Return the OpenAPI document of the dialect.

    All callers get the same cached object, so they must not change it.
    """
    return describe("bootvol", _ABOUT, NOVA)


def application(
    door: Door, policy: Policy, services: Services, answers: Answers
) -> Application[NovaContext]:
    """Return the application of Nova's dialect.

    :param door: authenticates requests.
    :param policy: decides the caller's rights.
    :param answers: caches the answers that depend on rows alone.
    """
    callers = Callers(door, policy, services, NovaContext.of, counted)
    return Application(NOVA, callers.admit, answers)
