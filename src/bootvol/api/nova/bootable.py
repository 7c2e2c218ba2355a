"""Calls of hp-bootable-volumes (specification, section B3)."""

from __future__ import annotations

from bootvol.api.nova import views
from bootvol.api.nova.calls import Ask, call


@call("GET", "hp-bootable-volumes", paged=True, of_rows=True)
async def list_bootable(ask: Ask) -> views.BootableVolumes:
    """List the volumes created from an image."""
    listed = await ask.core.volumes.listed(ask.caller, bootable=True, **ask.page)
    return {"volumes": [views.bootable_volume(each, ask.place) for each in listed]}


@call("GET", "hp-bootable-volumes/<volume_id>", named=True, of_rows=True)
async def show_bootable(ask: Ask, volume_id: int) -> views.OneBootableVolume:
    """Show a volume created from an image."""
    found = await ask.core.volumes.get(ask.caller, volume_id, bootable=True)
    return {"volume": views.bootable_volume(found, ask.place)}


@call("GET", "hp-bootable-volumes/<volume_id>/import", named=True)
async def show_import(ask: Ask, volume_id: int) -> views.OneImport:
    """Show the progress of a bootable volume's import."""
    return {"import": views.progress(await ask.core.volumes.progress(ask.caller, volume_id))}
