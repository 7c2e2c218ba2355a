"""Operations with which operators take disks over, and give volumes up."""

from __future__ import annotations

from typing import Annotated, Final

import attrs
from pydantic import BaseModel, BeforeValidator, Field
from typing_extensions import TypedDict

from bootvol.api.bodies import BODY, Text, absent_if_empty
from bootvol.api.cinder import views
from bootvol.api.cinder.acting import Action, Nothing
from bootvol.api.cinder.bodies import Description, Flag, Metadata, Name
from bootvol.api.cinder.context import CinderContext
from bootvol.api.cinder.default_type import DEFAULT
from bootvol.api.cinder.manageable import SINCE, asked_backend
from bootvol.api.cinder.microversions import LOWEST
from bootvol.api.cinder.volume_types import of_reference
from bootvol.api.cinder.words import refusal, shown
from bootvol.api.http import Reply
from bootvol.api.operations import operation
from bootvol.errors import InvalidRequest, SnapshotBusy, VolumeBusy
from bootvol.lifecycle import Kind
from bootvol.model import Adoption, NewSnapshot
from bootvol.policy import Right

_NOT_GIVEN_UP: Final = (
    "Volume status must be available or error or error_restoring or error_extending or"
    " error_managing and must not be migrating, attached, belong to a group, have snapshots,"
    " awaiting a transfer, or be disassociated from snapshots after volume transfer."
)
_SNAPSHOT_NOT_GIVEN_UP: Final = (
    "Snapshot status must be available or error and must not be part of a group."
)
#: The longest name of a disk.
_LONGEST: Final = 255


def _place(value: object) -> str:
    """Return the name in a reference: the member ``source-name``."""
    if not isinstance(value, dict):
        raise ValueError(refusal("ref", value, f"{shown(value)} is not of type 'object'"))
    place = value.get("source-name")
    if not isinstance(place, str) or not 0 < len(place) <= _LONGEST or not place.isprintable():
        raise ValueError(
            "Invalid input received: the reference must have a source-name: the name of a disk in"
            " the store of the backend"
        )
    return place


_Reference = Annotated[str, BeforeValidator(_place, dict[str, str])]
_Named = Annotated[Text | None, BeforeValidator(absent_if_empty)]


class Manage(BaseModel):
    """The object ``volume`` of a request to take a disk over."""

    model_config = BODY

    ref: _Reference
    host: Annotated[Text, Field(max_length=_LONGEST)]
    name: Name = None
    description: Description = None
    volume_type: _Named = None
    availability_zone: _Named = None
    metadata: Metadata | None = None
    bootable: Flag | None = None


class ManageSnapshot(BaseModel):
    """The object ``snapshot`` of a request to take a snapshot over."""

    model_config = BODY

    volume_id: Text
    ref: _Reference
    name: Name = None
    description: Description = None
    metadata: Metadata | None = None


class ManagedVolume(TypedDict):
    volume: views.VolumeShown


class ManagedSnapshot(TypedDict):
    snapshot: views.SnapshotBrief


async def _manage(context: CinderContext, body: Manage) -> ManagedVolume:
    """Take a disk over as a volume; the answer does not wait for that."""
    backend, host = asked_backend(context, body.host)
    zone = context.services.volumes.zone
    if body.availability_zone not in (None, zone):
        raise InvalidRequest(f"Availability zone '{body.availability_zone}' is invalid.")
    type_name = None
    if body.volume_type is not None:
        found = await of_reference(context, body.volume_type)
        type_name = None if found.id == DEFAULT.id else found.name
    wanted = Adoption(
        backend,
        host,
        body.ref,
        type_name,
        body.name,
        body.description,
        body.metadata or {},
        bool(body.bootable),
    )
    made = await context.services.adoptions.adopt(context.caller, wanted)
    # Cinder shows such a volume as in its earliest microversion.
    return {"volume": views.volume(made, attrs.evolve(context, microversion=LOWEST))}


async def _manage_snapshot(context: CinderContext, body: ManageSnapshot) -> ManagedSnapshot:
    """Take a snapshot of a volume over; the answer does not wait for that."""
    of = await _on_behalf(context, body.volume_id)
    wanted = NewSnapshot(
        await of.row("volumes", body.volume_id),
        body.name,
        body.description,
        metadata=body.metadata or {},
    )
    made = await of.services.adoptions.adopt_snapshot(of.caller, wanted, body.ref)
    return {"snapshot": views.brief_snapshot(made)}


async def _on_behalf(context: CinderContext, volume: str) -> CinderContext:
    """Return the context in which an operator acts for the project of a volume."""
    if not context.operates:
        return context
    owner = await context.services.ids.owner(Kind.VOLUME, volume)
    caller = context.caller if owner is None else attrs.evolve(context.caller, tenant=owner)
    return attrs.evolve(context, caller=caller)


async def _unmanage(context: CinderContext, number: int, _: Nothing) -> Reply:
    try:
        await context.services.adoptions.give_up(context.caller, number)
    except VolumeBusy:
        raise VolumeBusy(_NOT_GIVEN_UP) from None
    return Reply(status=202)


async def _unmanage_snapshot(context: CinderContext, number: int, _: Nothing) -> Reply:
    try:
        await context.services.adoptions.give_up_snapshot(context.caller, number)
    except SnapshotBusy:
        raise SnapshotBusy(_SNAPSHOT_NOT_GIVEN_UP) from None
    return Reply(status=202)


#: The actions on volumes, and those on snapshots.
ACTIONS: Final = (Action("os-unmanage", Nothing, _unmanage, Right.MANAGE),)
SNAPSHOT_ACTIONS: Final = (Action("os-unmanage", Nothing, _unmanage_snapshot, Right.MANAGE),)

#: The calls have a new path since a later version, under another name.
_PATHS: Final = (("", "os-{kind}-manage", 0), ("_by_new_name", "manageable_{kind}s", SINCE))
OPERATIONS = tuple(
    operation(
        f"{kind}s_manage_disk{ending}",
        "POST",
        path.format(kind=kind),
        status=202,
        entity=kind,
        right=Right.MANAGE,
        since=since,
        refusals=refusals,
    )(handler)
    for kind, handler, refusals in (
        ("volume", _manage, (404, 413, 503)),
        ("snapshot", _manage_snapshot, (404, 413)),
    )
    for ending, path, since in _PATHS
)
