"""Calls of servers and os-volumes_boot (specification, sections 5.9 and 5.12)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from bootvol.api.nova import bodies, server_bodies, server_views
from bootvol.api.nova.calls import Ask, call
from bootvol.api.nova.filters import Filter, filtered, paged
from bootvol.api.nova.links import Link
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


@call("POST", "os-volumes_boot", entity="server", refusals=_CREATION)
async def boot(ask: Ask, asked: server_bodies.CreateServer) -> server_views.OneServer:
    """Boot a server from a volume."""
    return await _create(ask, asked)


@call("POST", "servers", status=202, entity="server", refusals=_CREATION)
async def create_server(ask: Ask, asked: server_bodies.CreateServer) -> server_views.OneServer:
    """Boot a server from a volume, as in Folsom."""
    return await _create(ask, asked)


async def _create(ask: Ask, asked: server_bodies.CreateServer) -> server_views.OneServer:
    wanted = await asked.wanted(ask.number)
    return _shown(ask, (await ask.core.servers.create(ask.caller, wanted), False))


def _shown(ask: Ask, seen: _Seen) -> server_views.OneServer:
    return {"server": server_views.server(*seen, ask.place, ask.core.servers.zone)}


@call("GET", "servers", query=_QUERY, refusals=(501, 503))
async def list_servers(ask: Ask) -> server_views.Servers:
    """List the tenant's servers, newest first: ids and names."""
    listed, links = await _listed(ask)
    shown: server_views.Servers = {
        "servers": [server_views.brief_server(server, ask.place) for server, _ in listed]
    }
    if links:
        shown["servers_links"] = links
    return shown


@call("GET", "servers/detail", query=_QUERY, refusals=(501, 503))
async def list_servers_in_detail(ask: Ask) -> server_views.ServersInDetail:
    """List the tenant's servers with details, newest first."""
    listed, links = await _listed(ask)
    shown: server_views.ServersInDetail = {
        "servers": [server_views.server(*each, ask.place, ask.core.servers.zone) for each in listed]
    }
    if links:
        shown["servers_links"] = links
    return shown


async def _listed(ask: Ask) -> tuple[Sequence[_Seen], list[Link]]:
    found = await ask.core.servers.listed(ask.caller)
    found = filtered(ask.request, found, _FITS, _REFUSED)
    return paged(ask.request, found, lambda seen: ask.place.id(seen[0].id, seen[0].uuid))


def _is_called(seen: _Seen, text: str) -> bool:
    """Tell whether a server's name contains a text; ``^`` and ``$`` mean the name's ends."""
    name, wanted = seen[0].display_name, text.removeprefix("^").removesuffix("$")
    begins, ends = text.startswith("^"), text.endswith("$")
    if begins and ends:
        return name == wanted
    if begins or ends:
        return name.startswith(wanted) if begins else name.endswith(wanted)
    return wanted in name


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


@call("GET", "servers/<server_id>", refusals=(501, 503))
async def show_server(ask: Ask, server_id: str) -> server_views.OneServer:
    """Show a server, by id or uuid."""
    return _shown(ask, await ask.core.servers.get(ask.caller, server_id))


@call("PUT", "servers/<server_id>", entity="server", refusals=(501, 503))
async def change_server(
    ask: Ask, server_id: str, asked: server_bodies.ChangeServer
) -> server_views.OneServer:
    """Change a server's name."""
    if asked.name is None:
        return _shown(ask, await ask.core.servers.get(ask.caller, server_id))
    return _shown(ask, await ask.core.servers.rename(ask.caller, server_id, asked.name))


@call("DELETE", "servers/<server_id>", status=204, refusals=(501,))
async def delete_server(ask: Ask, server_id: str) -> None:
    """Terminate a server; its volumes stay, except those marked for deletion with it."""
    await ask.core.servers.delete(ask.caller, server_id)


@call("POST", "servers/<server_id>/action", empty=202, refusals=(409, 501, 503))
async def act(
    ask: Ask, server_id: str, asked: server_bodies.Action
) -> server_views.ConsoleShown | None:
    """Stop, start or reboot a server, or show the last lines of its serial console."""
    if len(asked.root) != 1:
        # The message is Nova's.
        raise InvalidRequest("Malformed request body") if asked.root else MissingEntity
    ((name, given),) = asked.root.items()
    if name == "os-getConsoleOutput":
        wanted = bodies.read_part(given or {}, server_bodies.GetConsole)
        return {"output": await ask.core.servers.console(ask.caller, server_id, wanted.lines)}
    if name == "reboot":
        soft = bodies.read_part(given, server_bodies.Reboot).type == "SOFT"
        await ask.core.servers.power(ask.caller, server_id, Event.REBOOT if soft else Event.RESET)
    elif name in _POWER:
        await ask.core.servers.power(ask.caller, server_id, _POWER[name])
    else:
        raise InvalidRequest(f"There is no such action: {name[:255]}")
    return None


_POWER: Final = {"os-stop": Event.STOP, "os-start": Event.START}


@call("GET", "servers/<server_id>/metadata", refusals=(501, 503))
async def show_metadata(ask: Ask, server_id: str) -> server_views.MetadataShown:
    """Show a server's metadata."""
    server, _ = await ask.core.servers.get(ask.caller, server_id)
    return {"metadata": dict(server.metadata)}


@call("POST", "servers/<server_id>/metadata", entity="metadata", refusals=(501, 503))
async def add_metadata(
    ask: Ask, server_id: str, asked: server_bodies.MetadataItems
) -> server_views.MetadataShown:
    """Set items of a server's metadata; other items stay."""
    server = await ask.core.servers.set_metadata(ask.caller, server_id, asked.root)
    return {"metadata": dict(server.metadata)}


@call("PUT", "servers/<server_id>/metadata", entity="metadata", refusals=(501, 503))
async def replace_metadata(
    ask: Ask, server_id: str, asked: server_bodies.MetadataItems
) -> server_views.MetadataShown:
    """Replace a server's metadata."""
    server = await ask.core.servers.set_metadata(ask.caller, server_id, asked.root, whole=True)
    return {"metadata": dict(server.metadata)}


@call("GET", "servers/<server_id>/metadata/<key>", refusals=(501, 503))
async def show_item(ask: Ask, server_id: str, key: str) -> server_views.MetaShown:
    """Show an item of a server's metadata."""
    server, _ = await ask.core.servers.get(ask.caller, server_id)
    if key not in server.metadata:
        raise MetadataNotFound
    return {"meta": {key: server.metadata[key]}}


@call("PUT", "servers/<server_id>/metadata/<key>", entity="meta", refusals=(501, 503))
async def set_item(
    ask: Ask, server_id: str, key: str, asked: server_bodies.MetadataItems
) -> server_views.MetaShown:
    """Set an item of a server's metadata."""
    if key not in asked.root:
        raise InvalidRequest("Request body and URI mismatch")
    if len(asked.root) > 1:
        raise InvalidRequest("Request body contains too many items")
    await ask.core.servers.set_metadata(ask.caller, server_id, asked.root)
    return {"meta": asked.root}


@call("DELETE", "servers/<server_id>/metadata/<key>", status=204, refusals=(501, 503))
async def delete_item(ask: Ask, server_id: str, key: str) -> None:
    """Delete an item of a server's metadata."""
    await ask.core.servers.delete_metadata(ask.caller, server_id, key)
