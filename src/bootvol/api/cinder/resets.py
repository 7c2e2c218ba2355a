"""Actions with which operators set the statuses of volumes and snapshots."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, Field

from bootvol.api.cinder import managing
from bootvol.api.cinder.acting import Action, Actions, Named, Nothing
from bootvol.api.cinder.bodies import STRICT
from bootvol.api.cinder.context import CinderContext
from bootvol.api.http import Reply
from bootvol.api.operations import operation
from bootvol.errors import InvalidRequest
from bootvol.policy import Right

#: Cinder's statuses of volumes and snapshots, in the order of its messages.
_VOLUME: Final = (
    "creating",
    "available",
    "deleting",
    "error",
    "error_deleting",
    "error_managing",
    "managing",
    "attaching",
    "in-use",
    "detaching",
    "maintenance",
    "restoring-backup",
    "error_restoring",
    "reserved",
    "awaiting-transfer",
    "backing-up",
    "error_backing-up",
    "error_extending",
    "downloading",
    "uploading",
    "retyping",
    "extending",
)
_SNAPSHOT: Final = (
    "error",
    "available",
    "creating",
    "deleting",
    "deleted",
    "updating",
    "error_deleting",
    "unmanaging",
    "backing-up",
    "restoring",
)
_ATTACH: Final = ("attached", "detached")
_MIGRATION: Final = ("migrating", "error", "success", "completing", "none", "starting")

_Status = Annotated[str, Field(max_length=32)]


class ResetVolume(BaseModel):
    """The parameters of ``os-reset_status`` of a volume."""

    model_config = STRICT

    status: _Status | None = None
    attach_status: _Status | None = None
    migration_status: _Status | None = None


class ResetSnapshot(BaseModel):
    """The parameters of ``os-reset_status`` of a snapshot."""

    model_config = STRICT

    status: _Status


class Report(BaseModel):
    """The parameters of ``os-update_snapshot_status``."""

    model_config = STRICT

    status: _Status
    progress: Annotated[str, Field(pattern="^[0-9]{1,3}%$")] | None = None


async def _reset_volume(context: CinderContext, number: int, body: ResetVolume) -> Reply:
    status, attach = _lower(body.status), _lower(body.attach_status)
    migration = _lower(body.migration_status)
    if status is None and attach is None and migration is None:
        raise InvalidRequest(
            "Must specify 'status', 'attach_status' or 'migration_status' for update."
        )
    _check("Volume status", status, _VOLUME, "({})")
    _check("Volume attach status", attach, _ATTACH, "[{}]")
    _check("Volume migration status", migration, _MIGRATION, "({})")
    if attach == "attached" and status != "in-use":
        raise InvalidRequest(
            "Cannot reset-state to attached because volume does not have any attachments."
        )
    if migration not in (None, "none"):
        raise InvalidRequest("Cannot reset the migration status: no volume is on its way.")
    resets, volumes = context.services.resets, context.services.volumes
    if attach == "detached":
        await resets.check_detached(context.caller, number)
    if status is not None:
        await resets.volume(context.caller, number, status)
    else:
        await volumes.get(context.caller, number)
    if migration is not None:
        await volumes.change(context.caller, number, {"moved": None})
    return Reply(status=202)


async def _reset_snapshot(context: CinderContext, number: int, body: ResetSnapshot) -> Reply:
    status = body.status.lower()
    _check("Snapshot status", status, _SNAPSHOT, "({})")
    await context.services.resets.snapshot(context.caller, number, status)
    return Reply(status=202)


async def _report(context: CinderContext, number: int, body: Report) -> Reply:
    await context.services.resets.report(context.caller, number, body.status, body.progress)
    return Reply(status=202)


async def _force_delete_snapshot(context: CinderContext, number: int, _: Nothing) -> Reply:
    await context.services.snapshots.delete(context.caller, number)
    return Reply(status=202)


def _lower(text: str | None) -> str | None:
    """Return a status as Cinder compares statuses; None for none."""
    return text.lower() if text else None


def _check(what: str, status: str | None, known: tuple[str, ...], form: str) -> None:
    """Check that a status is one of Cinder's.

    :raises InvalidRequest: if the status is another one.
    """
    if status is not None and status not in known:
        listed = form.format(", ".join(map(repr, known)))
        raise InvalidRequest(f"{what}: {status} is invalid, valid statuses are: {listed}.")


#: The actions on volumes.
ACTIONS: Final = (Action("os-reset_status", ResetVolume, _reset_volume, Right.RESET_STATUS),)

SNAPSHOTS: Final = Actions(
    (
        Action("os-reset_status", ResetSnapshot, _reset_snapshot, Right.RESET_STATUS),
        Action("os-force_delete", Nothing, _force_delete_snapshot, Right.FORCE),
        Action("os-update_snapshot_status", Report, _report),
        *managing.SNAPSHOT_ACTIONS,
    )
)


@operation("snapshots_act", "POST", "snapshots/<snapshot_id>/action", empty=202)
async def act_on_snapshot(context: CinderContext, snapshot_id: int, body: Named) -> Reply:
    """Do as the name in the body says."""
    return await SNAPSHOTS.act(context, snapshot_id, body)


OPERATIONS = (act_on_snapshot,)
