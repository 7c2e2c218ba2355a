"""Operations of servers/{id}/os-volume_attachments (specification, section 5.8)."""

from __future__ import annotations

from typing import Final

from bootvol.api.nova import bodies, views
from bootvol.api.nova.context import NovaContext
from bootvol.api.nova.links import NUMBERED
from bootvol.api.operations import operation
from bootvol.errors import InvalidRequest
from bootvol.lifecycle import Kind
from bootvol.service.ids import NONE

_BASE: Final = "servers/<server_id>/os-volume_attachments"


@operation("attachments_list_attachments", "GET", _BASE, paged=True)
async def list_attachments(context: NovaContext, server_id: str) -> views.Attachments:
    """List the volumes attached to a server."""
    listed = await context.services.attachments.listed(context.caller, server_id, **context.page)
    return {"volumeAttachments": [views.attachment(each, context.base) for each in listed]}


@operation("attachments_attach", "POST", _BASE, entity="volumeAttachment", refusals=(409,))
async def attach(
    context: NovaContext, server_id: str, body: bodies.AttachVolume
) -> views.OneNewAttachment | views.OneAttachment:
    """Attach a volume to a server; the answer does not wait for the attachment."""
    volume_id = await context.number(Kind.VOLUME, body.volume_id)
    made = await context.services.attachments.create(
        context.caller, server_id, NONE if volume_id is None else volume_id, body.device
    )
    if context.base.version != NUMBERED:
        return {"volumeAttachment": views.attachment(made, context.base)}
    return {"volumeAttachment": {"id": body.as_sent, "volumeId": body.as_sent}}


@operation("attachments_show_attachment", "GET", f"{_BASE}/<volume_id>")
async def show_attachment(
    context: NovaContext, server_id: str, volume_id: int
) -> views.OneAttachment:
    """Show the attachment of a volume to a server."""
    found = await context.services.attachments.get(context.caller, server_id, volume_id)
    return {"volumeAttachment": views.attachment(found, context.base)}


@operation("attachments_swap", "PUT", f"{_BASE}/<volume_id>")
async def swap(context: NovaContext, server_id: str, volume_id: str) -> None:
    """Refuse to swap an attached volume for another one, as in 2012."""
    raise InvalidRequest("Volumes cannot be swapped.")


@operation("attachments_detach", "DELETE", f"{_BASE}/<volume_id>", status=202)
async def detach(context: NovaContext, server_id: str, volume_id: int) -> None:
    """Detach a volume; the volume stays in use until the server has released it."""
    await context.services.attachments.delete(context.caller, server_id, volume_id)


OPERATIONS = (list_attachments, attach, show_attachment, swap, detach)
