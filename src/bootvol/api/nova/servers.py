"""servers and os-volumes_boot, and what clients ask around them (reference, 5.9 and 5.12)."""

from __future__ import annotations

from typing import Final

from bootvol.api.nova import server_bodies, server_views
from bootvol.api.nova.calls import Ask, call
from bootvol.errors import FlavorNotFound

#: No such flavor, no such name for a disk any more, over quota, no servers here.
_CREATION: Final = (404, 409, 413, 501)


@call("POST", "os-volumes_boot", entity="server", refusals=_CREATION)
async def boot(ask: Ask, asked: server_bodies.CreateServer) -> server_views.OneServer:
    """Boot a server from a volume."""
    return await _create(ask, asked)


@call("POST", "servers", status=202, entity="server", refusals=_CREATION)
async def create_server(ask: Ask, asked: server_bodies.CreateServer) -> server_views.OneServer:
    """Boot a server from a volume, as Folsom has it."""
    return await _create(ask, asked)


async def _create(ask: Ask, asked: server_bodies.CreateServer) -> server_views.OneServer:
    made = await ask.core.servers.create(ask.caller, asked.wanted())
    return {"server": server_views.server(made, running=False)}


@call("GET", "servers", "servers/detail", paged=True, refusals=(501, 503))
async def list_servers(ask: Ask) -> server_views.Servers:
    """List the tenant's servers, the newest first."""
    listed = await ask.core.servers.listed(ask.caller, **ask.page)
    return {"servers": [server_views.server(*each) for each in listed]}


@call("GET", "servers/<server_id>", refusals=(501, 503))
async def show_server(ask: Ask, server_id: str) -> server_views.OneServer:
    """Show a server, by its id or its uuid."""
    return {"server": server_views.server(*await ask.core.servers.get(ask.caller, server_id))}


@call("DELETE", "servers/<server_id>", status=204, refusals=(501,))
async def delete_server(ask: Ask, server_id: str) -> None:
    """Terminate a server; its volumes stay, but for those that were to go with it."""
    await ask.core.servers.delete(ask.caller, server_id)


@call("POST", "servers/<server_id>/action", entity="os-getConsoleOutput", refusals=(501, 503))
async def show_console(
    ask: Ask, server_id: str, asked: server_bodies.GetConsole
) -> server_views.ConsoleShown:
    """Show the last lines of a server's serial console."""
    return {"output": await ask.core.servers.console(ask.caller, server_id, asked.length)}


@call("GET", "flavors", "flavors/detail")
async def list_flavors(ask: Ask) -> server_views.Flavors:
    """List how large servers may be."""
    return {"flavors": [server_views.flavor(each) for each in ask.core.servers.flavors.values()]}


@call("GET", "flavors/<flavor_id>")
async def show_flavor(ask: Ask, flavor_id: str) -> server_views.OneFlavor:
    """Show a flavor."""
    found = ask.core.servers.flavors.get(flavor_id)
    if found is None:
        raise FlavorNotFound(flavor_id)
    return {"flavor": server_views.flavor(found)}


@call("GET", "os-keypairs")
async def list_keypairs(ask: Ask) -> server_views.Keypairs:
    """List key pairs: there are none, but a client that boots a server asks."""
    return {"keypairs": []}
