"""servers/{id}/os-volume_attachments (reference, section 5.8)."""

from __future__ import annotations

from typing import Final

from bootvol.api.nova import bodies, views
from bootvol.api.nova.calls import Ask, call
from bootvol.errors import InvalidRequest

_BASE: Final = "servers/<server_id>/os-volume_attachments"


@call("GET", _BASE, paged=True)
async def list_attachments(ask: Ask, server_id: str) -> views.Attachments:
    """List the volumes that are attached to a server."""
    listed = await ask.core.attachments.listed(ask.caller, server_id, **ask.page)
    return {"volumeAttachments": [views.attachment(each) for each in listed]}


@call("POST", _BASE, entity="volumeAttachment", refusals=(409,))
async def attach(ask: Ask, server_id: str, asked: bodies.Attach) -> views.OneNewAttachment:
    """Attach a volume to a server; the answer comes before it is there."""
    await ask.core.attachments.create(ask.caller, server_id, asked.volume_id, asked.device)
    return {"volumeAttachment": {"id": asked.as_sent, "volumeId": asked.as_sent}}


@call("GET", f"{_BASE}/<volume_id>")
async def show_attachment(ask: Ask, server_id: str, volume_id: int) -> views.OneAttachment:
    """Show how a volume is attached to a server."""
    found = await ask.core.attachments.get(ask.caller, server_id, volume_id)
    return {"volumeAttachment": views.attachment(found)}


@call("PUT", f"{_BASE}/<volume_id>")
async def swap(ask: Ask, server_id: str, volume_id: str) -> None:
    """Refuse to put another volume in this one's place, as in 2012."""
    raise InvalidRequest("Volumes cannot be swapped.")


@call("DELETE", f"{_BASE}/<volume_id>", status=202)
async def detach(ask: Ask, server_id: str, volume_id: int) -> None:
    """Detach a volume; it stays in use until the server has let go of it."""
    await ask.core.attachments.delete(ask.caller, server_id, volume_id)
