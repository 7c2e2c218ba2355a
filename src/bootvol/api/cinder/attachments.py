"""Operations of attachments (docs/block-storage.md)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs
from typing_extensions import TypedDict

from bootvol.api.cinder import taken
from bootvol.api.cinder.acting import Named
from bootvol.api.cinder.attachment_bodies import CreateAttachment, UpdateAttachment, connector
from bootvol.api.cinder.connections import flat
from bootvol.api.cinder.context import CinderContext, everywhere
from bootvol.api.cinder.filter_names import OPEN
from bootvol.api.cinder.lists import Listing
from bootvol.api.cinder.views import Uuid, time
from bootvol.api.operations import operation
from bootvol.errors import InvalidRequest
from bootvol.jsons import JsonObject
from bootvol.lifecycle import Kind
from bootvol.model import Hold, NewHold
from bootvol.service.holding.holds import Told

#: The first segment of the paths, and the minor versions with attachments and their completion.
_PATH: Final = "attachments"
_SINCE: Final = 27
_COMPLETED_SINCE: Final = 44


class AttachmentBrief(TypedDict):
    """An attachment in a list without details."""

    id: Uuid
    status: str
    instance: str | None
    volume_id: Uuid


class WholeAttachment(AttachmentBrief):
    """An attachment.  Unknown times are empty."""

    attached_at: str
    detached_at: str
    attach_mode: str
    connection_info: dict[str, object]


class AttachmentsBrief(TypedDict):
    """A list.  As in Cinder, pages have no links: clients ask on after the last id."""

    attachments: list[AttachmentBrief]


class Attachments(TypedDict):
    """A list with details."""

    attachments: list[WholeAttachment]


class OneAttachment(TypedDict):
    attachment: WholeAttachment


_LISTING: Final = Listing[Hold](
    key=lambda each: each.uuid,
    missing=taken.missing,
    filters={
        "volume_id": lambda each, value: each.volume_uuid == value,
        "instance_id": lambda each, value: each.instance == value,
        "status": lambda each, value: each.state == value,
        "attach_status": lambda each, value: each.state == value,
        "project_id": lambda each, value: each.tenant == value,
        "attached_host": lambda each, value: each.host == value,
        "id": lambda each, value: each.uuid == value,
    },
    sorted_by={
        "id": lambda each: each.uuid,
        "created_at": lambda each: each.created_at,
        "attach_status": lambda each: str(each.state),
        "volume_id": lambda each: each.volume_uuid,
    },
    open=OPEN["attachment"],
)
_QUERY: Final = (*_LISTING.query, "all_tenants")


@operation("attachments_list", "GET", _PATH, query=_QUERY, since=_SINCE, refusals=(404,))
async def list_attachments(context: CinderContext) -> AttachmentsBrief:
    """List the attachments of the project's volumes."""
    return {"attachments": [_brief(each) for each in await _page(context)]}


@operation(
    "attachments_list_details",
    "GET",
    f"{_PATH}/detail",
    query=_QUERY,
    since=_SINCE,
    refusals=(404,),
)
async def list_details(context: CinderContext) -> Attachments:
    """List the attachments of the project's volumes with their details."""
    return {"attachments": [_shown(each) for each in await _page(context)]}


async def _page(context: CinderContext) -> Sequence[Hold]:
    holds = context.services.holds
    if everywhere(context):
        found: Sequence[Hold] = await holds.listed_everywhere()
    else:
        found = await holds.listed(context.caller)
    return _LISTING.select(context, found).page


@operation(
    "attachments_create",
    "POST",
    _PATH,
    entity="attachment",
    since=_SINCE,
    refusals=(404, 409, 501),
)
async def create_attachment(context: CinderContext, body: CreateAttachment) -> OneAttachment:
    """Reserve a volume for a server; tell a host how to reach the volume, if the host is known."""
    if context.operates:
        owner = await context.services.ids.owner(Kind.VOLUME, body.volume_uuid)
        context = _for_project(context, owner)
    host = connector(body.connector) if body.connector else None
    number = await context.row("volumes", body.volume_uuid)
    wanted = NewHold(number, body.instance_uuid, body.wanted_mode)
    with taken.attachment():
        made = await context.services.holds.reserve(context.caller, wanted, host)
    return {"attachment": _told(made)}


@operation("attachments_show", "GET", f"{_PATH}/<uuid>", since=_SINCE)
async def show_attachment(context: CinderContext, uuid: str) -> OneAttachment:
    """Show an attachment."""
    context = await _for_owner(context, uuid)
    with taken.attachment(uuid):
        return {"attachment": _shown(await context.services.holds.get(context.caller, uuid))}


@operation(
    "attachments_update",
    "PUT",
    f"{_PATH}/<uuid>",
    entity="attachment",
    since=_SINCE,
    refusals=(409,),
)
async def update_attachment(
    context: CinderContext, uuid: str, body: UpdateAttachment
) -> OneAttachment:
    """Tell a host how to reach the volume; may be repeated."""
    context = await _for_owner(context, uuid)
    host = connector(body.connector)
    with taken.attachment(uuid):
        told = await context.services.holds.connect(context.caller, uuid, host)
    return {"attachment": _told(told)}


@operation("attachments_delete", "DELETE", f"{_PATH}/<uuid>", since=_SINCE, refusals=(409,))
async def delete_attachment(context: CinderContext, uuid: str) -> AttachmentsBrief:
    """Free the volume; the answer has the volume's other attachments."""
    context = await _for_owner(context, uuid)
    with taken.attachment(uuid):
        left = await context.services.holds.free(context.caller, uuid, trusted=context.trusted)
    return {"attachments": [_brief(each) for each in left]}


@operation(
    "attachments_act",
    "POST",
    f"{_PATH}/<uuid>/action",
    status=204,
    since=_COMPLETED_SINCE,
    refusals=(409,),
)
async def act(context: CinderContext, uuid: str, body: Named) -> None:
    """Note that the server has the volume: ``{"os-complete": …}``, with any value."""
    if len(body.root) != 1:
        raise InvalidRequest("Malformed request body")
    (name,) = body.root
    if name != "os-complete":
        raise InvalidRequest(
            f"There is no such action: {name[:255]}. Verify the request body and Content-Type"
            " header and try again."
        )
    context = await _for_owner(context, uuid)
    with taken.attachment(uuid):
        await context.services.holds.complete(context.caller, uuid)


async def _for_owner(context: CinderContext, uuid: str) -> CinderContext:
    """Return the context in which an operator acts for the project of an attachment."""
    if not context.operates:
        return context
    return _for_project(context, await context.services.holds.owner(uuid))


def _for_project(context: CinderContext, owner: str | None) -> CinderContext:
    if owner is None or owner == context.caller.tenant:
        return context
    return attrs.evolve(context, caller=attrs.evolve(context.caller, tenant=owner))


def _brief(value: Hold) -> AttachmentBrief:
    return {
        "id": value.uuid,
        "status": value.state,
        "instance": value.instance,
        "volume_id": value.volume_uuid,
    }


def _told(value: Told) -> WholeAttachment:
    """Return the view of an attachment whose host was just told the way.

    As in Cinder, all but the way is as it was before.
    """
    return {**_shown(value.before), "connection_info": _info(value.after)}


def _shown(value: Hold) -> WholeAttachment:
    return {
        "id": value.uuid,
        "status": value.state,
        "instance": value.instance,
        "volume_id": value.volume_uuid,
        "attached_at": "" if value.attached_at is None else time(value.attached_at),
        "detached_at": "",
        # Cinder shows the word for an unknown mode.
        "attach_mode": value.mode or "null",
        "connection_info": _info(value),
    }


def _info(value: Hold) -> JsonObject:
    if value.route is None:
        return {}
    return flat(value.route, value)


OPERATIONS = (
    list_attachments,
    list_details,
    create_attachment,
    show_attachment,
    update_attachment,
    delete_attachment,
    act,
)
