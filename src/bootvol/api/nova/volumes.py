"""Calls of os-volumes (specification, section 5.5)."""

from __future__ import annotations

from bootvol.api.nova import bodies, views
from bootvol.api.nova.calls import Ask, call
from bootvol.lifecycle import Kind
from bootvol.policy import Right


@call("GET", "os-volumes", "os-volumes/detail", paged=True, of_rows=True)
async def list_volumes(ask: Ask) -> views.Volumes:
    """List the tenant's volumes; ``detail`` makes no difference."""
    listed = await ask.core.volumes.listed(ask.caller, **ask.page)
    return {"volumes": [views.volume(each, ask.place) for each in listed]}


@call("POST", "os-volumes", entity="volume", refusals=(404, 413, 503))
async def create_volume(ask: Ask, asked: bodies.CreateVolume) -> views.OneVolume:
    """Create a volume; with ``imageRef``, a bootable volume."""
    wanted = asked.wanted(await ask.number(Kind.SNAPSHOT, asked.snapshot_id))
    made = await ask.core.volumes.create(ask.caller, wanted)
    return {"volume": views.volume(made, ask.place)}


@call("GET", "os-volumes/<volume_id>", of_rows=True)
async def show_volume(ask: Ask, volume_id: int) -> views.OneVolume:
    """Show a volume."""
    found = await ask.core.volumes.get(ask.caller, volume_id)
    return {"volume": views.volume(found, ask.place)}


@call("DELETE", "os-volumes/<volume_id>", status=202)
async def delete_volume(ask: Ask, volume_id: int) -> None:
    """Delete a volume; the answer does not wait for the deletion."""
    await ask.core.volumes.delete(ask.caller, volume_id)


@call("GET", "os-volumes/<volume_id>/error")
async def show_error(ask: Ask, volume_id: int) -> views.OneError:
    """Show why a volume is in ``error``, is not attached, or waits; null without a problem."""
    return {"error": views.error(await ask.core.volumes.error(ask.caller, volume_id))}


@call("GET", "os-volumes/<volume_id>/connection", right=Right.CONNECTION, refusals=(503,))
async def show_connection(ask: Ask, volume_id: int) -> views.OneConnection:
    """Show a volume's address for hypervisors."""
    found = await ask.core.volumes.connection(ask.caller, volume_id)
    return {"connection": views.connection(found)}
