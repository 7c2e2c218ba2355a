"""Operations of hp-bootable-volumes (specification, section B3)."""

from __future__ import annotations

from bootvol.api.nova import views
from bootvol.api.nova.context import NovaContext
from bootvol.api.operations import operation


@operation("bootable_list_bootable", "GET", "hp-bootable-volumes", paged=True, of_rows=True)
async def list_bootable(context: NovaContext) -> views.BootableVolumes:
    """List the volumes created from an image."""
    listed = await context.services.volumes.listed(context.caller, bootable=True, **context.page)
    return {"volumes": [views.bootable_volume(each, context.base) for each in listed]}


@operation(
    "bootable_show_bootable", "GET", "hp-bootable-volumes/<volume_id>", named=True, of_rows=True
)
async def show_bootable(context: NovaContext, volume_id: int) -> views.OneBootableVolume:
    """Show a volume created from an image."""
    found = await context.services.volumes.get(context.caller, volume_id, bootable=True)
    return {"volume": views.bootable_volume(found, context.base)}


@operation("bootable_show_import", "GET", "hp-bootable-volumes/<volume_id>/import", named=True)
async def show_import(context: NovaContext, volume_id: int) -> views.OneImport:
    """Show the progress of a bootable volume's import."""
    return {
        "import": views.progress(await context.services.volumes.progress(context.caller, volume_id))
    }


OPERATIONS = (list_bootable, show_bootable, show_import)
