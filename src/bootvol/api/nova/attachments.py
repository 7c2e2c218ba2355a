"""Calls of servers/{id}/os-volume_attachments (specification, section 5.8)."""

from __future__ import annotations

from typing import Final

from bootvol.api.nova import bodies, views
from bootvol.api.nova.calls import Ask, call
from bootvol.api.nova.links import NUMBERED
from bootvol.errors import InvalidRequest
from bootvol.lifecycle import Kind
from bootvol.service.ids import NONE

_BASE: Final = "servers/<server_id>/os-volume_attachments"


@call("GET", _BASE, paged=True)
async def list_attachments(ask: Ask, server_id: str) -> views.Attachments:
    """List the volumes attached to a server."""
    listed = await ask.core.attachments.listed(ask.caller, server_id, **ask.page)
    return {"volumeAttachments": [views.attachment(each, ask.place) for each in listed]}


@call("POST", _BASE, entity="volumeAttachment", refusals=(409,))
async def attach(
    ask: Ask, server_id: str, asked: bodies.Attach
) -> views.OneNewAttachment | views.OneAttachment:
    """Attach a volume to a server; the answer does not wait for the attachment."""
    volume_id = await ask.number(Kind.VOLUME, asked.volume_id)
    made = await ask.core.attachments.create(
        ask.caller, server_id, NONE if volume_id is None else volume_id, asked.device
    )
    if ask.place.version != NUMBERED:
        return {"volumeAttachment": views.attachment(made, ask.place)}
    return {"volumeAttachment": {"id": asked.as_sent, "volumeId": asked.as_sent}}


@call("GET", f"{_BASE}/<volume_id>")
async def show_attachment(ask: Ask, server_id: str, volume_id: int) -> views.OneAttachment:
    """Show the attachment of a volume to a server."""
    found = await ask.core.attachments.get(ask.caller, server_id, volume_id)
    return {"volumeAttachment": views.attachment(found, ask.place)}


@call("PUT", f"{_BASE}/<volume_id>")
async def swap(ask: Ask, server_id: str, volume_id: str) -> None:
    """Refuse to swap an attached volume for another one, as in 2012."""
    raise InvalidRequest("Volumes cannot be swapped.")


@call("DELETE", f"{_BASE}/<volume_id>", status=202)
async def detach(ask: Ask, server_id: str, volume_id: int) -> None:
    """Detach a volume; the volume stays in use until the server has released it."""
    await ask.core.attachments.delete(ask.caller, server_id, volume_id)
