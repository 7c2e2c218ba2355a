"""Operations of servers and os-volumes_boot (specification, sections 5.9 and 5.12)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from bootvol.api.bodies import read_part
from bootvol.api.filters import Filter, filtered
from bootvol.api.nova import server_bodies, server_views
from bootvol.api.nova.context import NovaContext
from bootvol.api.operations import operation
from bootvol.api.paging import Link, paged
from bootvol.errors import InvalidRequest, MetadataNotFound, MissingEntity
from bootvol.lifecycle import Event
from bootvol.model import Server

#: 404: no such flavor. 409: a disk's name is taken. 413: over quota. 501: no servers here. 503: a
#: source does not answer.
_CREATION: Final = (404, 409, 413, 501, 503)
#: Supported filters of servers, all parameters of the query, and Nova's filters that bootvol
#: refuses.
_FILTERS: Final = ("name", "status", "flavor", "image", "uuid", "user_id", "key_name")
_QUERY: Final = (*_FILTERS, "changes-since", "limit", "marker", "offset")
_REFUSED: Final = (
    *("all_tenants", "deleted", "host", "ip", "ip6", "node", "reservation_id", "sort_key"),
    *("sort_dir", "tags", "tags-any", "not-tags", "not-tags-any", "locked", "changes-before"),
)

#: A server, and whether the server runs.
_Seen = tuple[Server, bool]


@operation("servers_boot", "POST", "os-volumes_boot", entity="server", refusals=_CREATION)
async def boot(context: NovaContext, body: server_bodies.CreateServer) -> server_views.OneServer:
    """Boot a server from a volume."""
    return await _create(context, body)


@operation(
    "servers_create_server", "POST", "servers", status=202, entity="server", refusals=_CREATION
)
async def create_server(
    context: NovaContext, body: server_bodies.CreateServer
) -> server_views.OneServer:
    """Boot a server from a volume, as in Folsom."""
    return await _create(context, body)


async def _create(context: NovaContext, body: server_bodies.CreateServer) -> server_views.OneServer:
    request = await body.request(context.number)
    return _shown(context, (await context.services.servers.create(context.caller, request), False))


def _shown(context: NovaContext, seen: _Seen) -> server_views.OneServer:
    return {"server": server_views.server(*seen, context.base, context.services.servers.zone)}


@operation("servers_list_servers", "GET", "servers", query=_QUERY, refusals=(501, 503))
async def list_servers(context: NovaContext) -> server_views.Servers:
    """List the tenant's servers, newest first: ids and names."""
    listed, links = await _listed(context)
    shown: server_views.Servers = {
        "servers": [server_views.brief_server(server, context.base) for server, _ in listed]
    }
    if links:
        shown["servers_links"] = links
    return shown


@operation(
    "servers_list_servers_in_detail", "GET", "servers/detail", query=_QUERY, refusals=(501, 503)
)
async def list_servers_in_detail(context: NovaContext) -> server_views.ServersInDetail:
    """List the tenant's servers with details, newest first."""
    listed, links = await _listed(context)
    shown: server_views.ServersInDetail = {
        "servers": [
            server_views.server(*each, context.base, context.services.servers.zone)
            for each in listed
        ]
    }
    if links:
        shown["servers_links"] = links
    return shown


async def _listed(context: NovaContext) -> tuple[Sequence[_Seen], list[Link]]:
    found = await context.services.servers.listed(context.caller)
    found = filtered(context.request, found, _FITS, _REFUSED)
    return paged(context.request, found, lambda seen: context.base.id(seen[0].id, seen[0].uuid))


def _is_called(seen: _Seen, text: str) -> bool:
    """Tell whether a server's name contains a text; ``^`` and ``$`` mean the name's ends."""
    name, part = seen[0].display_name, text.removeprefix("^").removesuffix("$")
    begins, ends = text.startswith("^"), text.endswith("$")
    if begins and ends:
        return name == part
    if begins or ends:
        return name.startswith(part) if begins else name.endswith(part)
    return part in name


def _changed_since(seen: _Seen, text: str) -> bool:
    try:
        since = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidRequest("Invalid changes-since value") from None
    since = since.replace(tzinfo=UTC) if since.tzinfo is None else since
    return (seen[0].updated_at or seen[0].created_at) >= since


_FITS: Final[Mapping[str, Filter[_Seen]]] = {
    "name": _is_called,
    "status": lambda seen, text: server_views.status(*seen) == text.upper(),
    "flavor": lambda seen, text: seen[0].flavor_id == text,
    # Servers run from volumes, so no server has an image.
    "image": lambda seen, text: not text,
    "uuid": lambda seen, text: seen[0].uuid == text,
    "tenant_id": lambda seen, text: seen[0].tenant == text,
    "project_id": lambda seen, text: seen[0].tenant == text,
    "user_id": lambda seen, text: seen[0].user == text,
    "key_name": lambda seen, text: seen[0].key is not None and seen[0].key.name == text,
    "changes-since": _changed_since,
}


@operation("servers_show_server", "GET", "servers/<server_id>", refusals=(501, 503))
async def show_server(context: NovaContext, server_id: str) -> server_views.OneServer:
    """Show a server, by id or uuid."""
    return _shown(context, await context.services.servers.get(context.caller, server_id))


@operation(
    "servers_change_server", "PUT", "servers/<server_id>", entity="server", refusals=(501, 503)
)
async def change_server(
    context: NovaContext, server_id: str, body: server_bodies.ChangeServer
) -> server_views.OneServer:
    """Change a server's name."""
    if body.name is None:
        return _shown(context, await context.services.servers.get(context.caller, server_id))
    return _shown(
        context, await context.services.servers.rename(context.caller, server_id, body.name)
    )


@operation("servers_delete_server", "DELETE", "servers/<server_id>", status=204, refusals=(501,))
async def delete_server(context: NovaContext, server_id: str) -> None:
    """Terminate a server; its volumes stay, except those marked for deletion with it."""
    await context.services.servers.delete(context.caller, server_id)


@operation("servers_act", "POST", "servers/<server_id>/action", empty=202, refusals=(409, 501, 503))
async def act(
    context: NovaContext, server_id: str, body: server_bodies.Action
) -> server_views.ConsoleShown | None:
    """Stop, start or reboot a server, or show the last lines of its serial console."""
    if len(body.root) != 1:
        # The message is Nova's.
        raise InvalidRequest("Malformed request body") if body.root else MissingEntity
    ((name, given),) = body.root.items()
    if name == "os-getConsoleOutput":
        console = read_part(given or {}, server_bodies.GetConsole)
        return {
            "output": await context.services.servers.console(
                context.caller, server_id, console.lines
            )
        }
    if name == "reboot":
        soft = read_part(given, server_bodies.Reboot).type == "SOFT"
        await context.services.servers.power(
            context.caller, server_id, Event.REBOOT if soft else Event.RESET
        )
    elif name in _POWER:
        await context.services.servers.power(context.caller, server_id, _POWER[name])
    else:
        raise InvalidRequest(f"There is no such action: {name[:255]}")
    return None


_POWER: Final = {"os-stop": Event.STOP, "os-start": Event.START}


@operation("servers_show_metadata", "GET", "servers/<server_id>/metadata", refusals=(501, 503))
async def show_metadata(context: NovaContext, server_id: str) -> server_views.MetadataShown:
    """Show a server's metadata."""
    server, _ = await context.services.servers.get(context.caller, server_id)
    return {"metadata": dict(server.metadata)}


@operation(
    "servers_add_metadata",
    "POST",
    "servers/<server_id>/metadata",
    entity="metadata",
    refusals=(501, 503),
)
async def add_metadata(
    context: NovaContext, server_id: str, body: server_bodies.MetadataItems
) -> server_views.MetadataShown:
    """Set items of a server's metadata; other items stay."""
    server = await context.services.servers.set_metadata(context.caller, server_id, body.root)
    return {"metadata": dict(server.metadata)}


@operation(
    "servers_replace_metadata",
    "PUT",
    "servers/<server_id>/metadata",
    entity="metadata",
    refusals=(501, 503),
)
async def replace_metadata(
    context: NovaContext, server_id: str, body: server_bodies.MetadataItems
) -> server_views.MetadataShown:
    """Replace a server's metadata."""
    server = await context.services.servers.set_metadata(
        context.caller, server_id, body.root, whole=True
    )
    return {"metadata": dict(server.metadata)}


@operation("servers_show_item", "GET", "servers/<server_id>/metadata/<key>", refusals=(501, 503))
async def show_item(context: NovaContext, server_id: str, key: str) -> server_views.MetaShown:
    """Show an item of a server's metadata."""
    server, _ = await context.services.servers.get(context.caller, server_id)
    if key not in server.metadata:
        raise MetadataNotFound
    return {"meta": {key: server.metadata[key]}}


@operation(
    "servers_set_item",
    "PUT",
    "servers/<server_id>/metadata/<key>",
    entity="meta",
    refusals=(501, 503),
)
async def set_item(
    context: NovaContext, server_id: str, key: str, body: server_bodies.MetadataItems
) -> server_views.MetaShown:
    """Set an item of a server's metadata."""
    if key not in body.root:
        raise InvalidRequest("Request body and URI mismatch")
    if len(body.root) > 1:
        raise InvalidRequest("Request body contains too many items")
    await context.services.servers.set_metadata(context.caller, server_id, body.root)
    return {"meta": body.root}


@operation(
    "servers_delete_item",
    "DELETE",
    "servers/<server_id>/metadata/<key>",
    status=204,
    refusals=(501, 503),
)
async def delete_item(context: NovaContext, server_id: str, key: str) -> None:
    """Delete an item of a server's metadata."""
    await context.services.servers.delete_metadata(context.caller, server_id, key)


OPERATIONS = (
    boot,
    create_server,
    list_servers,
    list_servers_in_detail,
    show_server,
    change_server,
    delete_server,
    act,
    show_metadata,
    add_metadata,
    replace_metadata,
    show_item,
    set_item,
    delete_item,
)
