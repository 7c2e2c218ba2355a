"""Operations of os-volumes (specification, section 5.5)."""

from __future__ import annotations

from bootvol.api.nova import bodies, views
from bootvol.api.nova.context import NovaContext
from bootvol.api.operations import operation
from bootvol.lifecycle import Kind
from bootvol.policy import Right


@operation(
    "volumes_list_volumes",
    "GET",
    "os-volumes",
    aliases={"os-volumes/detail": "volumes_list_volumes_again"},
    paged=True,
    of_rows=True,
)
async def list_volumes(context: NovaContext) -> views.Volumes:
    """List the tenant's volumes; ``detail`` makes no difference."""
    listed = await context.services.volumes.listed(context.caller, **context.page)
    return {"volumes": [views.volume(each, context.base) for each in listed]}


@operation("volumes_create_volume", "POST", "os-volumes", entity="volume", refusals=(404, 413, 503))
async def create_volume(context: NovaContext, body: bodies.CreateVolume) -> views.OneVolume:
    """Create a volume; with ``imageRef``, a bootable volume."""
    request = body.request(await context.number(Kind.SNAPSHOT, body.snapshot_id))
    made = await context.services.volumes.create(context.caller, request)
    return {"volume": views.volume(made, context.base)}


@operation("volumes_show_volume", "GET", "os-volumes/<volume_id>", of_rows=True)
async def show_volume(context: NovaContext, volume_id: int) -> views.OneVolume:
    """Show a volume."""
    found = await context.services.volumes.get(context.caller, volume_id)
    return {"volume": views.volume(found, context.base)}


@operation("volumes_delete_volume", "DELETE", "os-volumes/<volume_id>", status=202)
async def delete_volume(context: NovaContext, volume_id: int) -> None:
    """Delete a volume; the answer does not wait for the deletion."""
    await context.services.volumes.delete(context.caller, volume_id)


@operation("volumes_show_error", "GET", "os-volumes/<volume_id>/error")
async def show_error(context: NovaContext, volume_id: int) -> views.OneError:
    """Show why a volume is in ``error``, is not attached, or waits; null without a problem."""
    return {"error": views.error(await context.services.volumes.error(context.caller, volume_id))}


@operation(
    "volumes_show_connection",
    "GET",
    "os-volumes/<volume_id>/connection",
    right=Right.CONNECTION,
    refusals=(503,),
)
async def show_connection(context: NovaContext, volume_id: int) -> views.OneConnection:
    """Show a volume's address for hypervisors."""
    found = await context.services.volumes.connection(context.caller, volume_id)
    return {"connection": views.connection(found)}


OPERATIONS = (list_volumes, create_volume, show_volume, delete_volume, show_error, show_connection)
