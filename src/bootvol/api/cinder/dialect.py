"""Cinder's dialect: the Block Storage API v3, below ``/volume``."""

from __future__ import annotations

from functools import cache
from typing import Final

from bootvol.api.admission import Callers
from bootvol.api.application import Application
from bootvol.api.cache import Answers
from bootvol.api.cinder import (
    absent,
    actions,
    attachments,
    default_types,
    encryption,
    filter_names,
    manageable,
    managing,
    messages,
    metadata,
    pools,
    qos,
    quotas,
    resets,
    services,
    snapshots,
    transfers,
    type_access,
    versions,
    views,
    volume_types,
    volumes,
    zones,
)
from bootvol.api.cinder.context import (
    ROOT,
    CinderContext,
    argument,
    cache_key,
    on_behalf,
    read_body,
    reword,
)
from bootvol.api.cinder.faults import CINDER_FAULTS, refusals
from bootvol.api.context import Services
from bootvol.api.dialects import Dialect
from bootvol.api.door import Door
from bootvol.api.openapi import describe
from bootvol.api.operations import document
from bootvol.api.rates import counted
from bootvol.jsons import JsonObject
from bootvol.policy import Policy

_ABOUT: Final = """\
The Block Storage API v3, as in Cinder. Every path exists with and without the project.
The header `OpenStack-API-Version: volume 3.N` asks for a microversion."""


@document("openapi_describe_volumes", "/openapi", of_url=False)
def show_description(_url: str) -> JsonObject:
    """Describe the Block Storage API in OpenAPI 3.1."""
    return description()


CINDER: Final = Dialect[CinderContext](
    prefixes=(ROOT,),
    template="/{version}/{path}",
    versions=("v3/<tenant>", "v3"),
    groups={
        "openapi": (show_description,),
        "versions": versions.OPERATIONS,
        "volumes": volumes.OPERATIONS,
        "actions": actions.OPERATIONS,
        "attachments": attachments.OPERATIONS,
        "disks": (*manageable.OPERATIONS, *managing.OPERATIONS),
        "snapshots": (*snapshots.OPERATIONS, *resets.OPERATIONS),
        "metadata": metadata.OPERATIONS,
        "transfers": transfers.OPERATIONS,
        "qos": qos.OPERATIONS,
        "types": (*volume_types.OPERATIONS, *type_access.OPERATIONS),
        "encryption": encryption.OPERATIONS,
        "messages": messages.OPERATIONS,
        "services": services.OPERATIONS,
        "pools": pools.OPERATIONS,
        "quotas": quotas.OPERATIONS,
        "zones": zones.OPERATIONS,
        "default types": default_types.OPERATIONS,
        "absent": absent.OPERATIONS,
        "filters": filter_names.OPERATIONS,
    },
    faults=CINDER_FAULTS,
    refusals=refusals,
    has=CinderContext.has,
    on_behalf=on_behalf,
    read_body=read_body,
    argument=argument,
    id_type=views.Uuid,
    reword=reword,
    cache_key=cache_key,
    negotiate=versions.negotiate,
)


@cache
def description() -> JsonObject:
    """Return the OpenAPI document of the dialect.

    All callers get the same cached object, so they must not change it.
    """
    return describe("bootvol: volumes", _ABOUT, CINDER)


def application(
    door: Door, policy: Policy, services: Services, answers: Answers
) -> Application[CinderContext]:
    """Return the application of Cinder's dialect.

    :param door: authenticates requests.
    :param policy: decides the caller's rights.
    :param answers: caches the answers that depend on rows alone.
    """
    callers = Callers(door, policy, services, CinderContext.of, counted)
    return Application(CINDER, callers.admit, answers)
