"""Operations of transfers of volumes between projects (docs/block-storage.md)."""

from __future__ import annotations

from typing import Final, NotRequired

from pydantic import BaseModel
from typing_extensions import TypedDict

from bootvol.api.bodies import Text
from bootvol.api.cinder.bodies import STRICT, Flag, Name, RequiredUuid
from bootvol.api.cinder.context import CinderContext
from bootvol.api.cinder.lists import Listing, Selected
from bootvol.api.cinder.views import Uuid, time
from bootvol.api.operations import Operation, operation
from bootvol.api.paging import Link
from bootvol.errors import InvalidRequest, TransferKeyWrong, TransferNotFound
from bootvol.model import Transfer

#: The first segment of the older paths, and of all links.
_PATH: Final = "os-volume-transfer"
#: The minor versions with the newer path, with the projects in answers, and with pages.
NEW_PATH: Final = 55
PROJECTS: Final = 57
PAGES: Final = 59

_LISTING: Final = Listing[Transfer](
    key=lambda each: each.uuid,
    missing=TransferNotFound,
    filters={"name": lambda each, value: each.name == value},
    sorted_by={
        "id": lambda each: each.uuid,
        "created_at": lambda each: each.created_at,
        "name": lambda each: each.name,
    },
    refuses=False,
)


class Offer(BaseModel):
    """The object ``transfer`` of a create request."""

    model_config = STRICT

    volume_id: RequiredUuid
    name: Name = None
    no_snapshots: Flag | None = None


class Accept(BaseModel):
    """The object ``accept`` of an acceptance."""

    model_config = STRICT

    auth_key: Text


class TransferBrief(TypedDict):
    """An offer in a list without details."""

    id: Uuid
    volume_id: Uuid
    name: str | None
    links: list[Link]


class TransferShown(TransferBrief):
    """An offer; only the answer to a new offer has the key."""

    created_at: str
    auth_key: NotRequired[str]
    no_snapshots: NotRequired[bool]
    source_project_id: NotRequired[str]
    destination_project_id: NotRequired[None]
    accepted: NotRequired[bool]


class TransfersBrief(TypedDict):
    transfers: list[TransferBrief]
    transfers_links: NotRequired[list[Link]]


class Transfers(TypedDict):
    transfers: list[TransferShown]
    transfers_links: NotRequired[list[Link]]


class OneTransferBrief(TypedDict):
    transfer: TransferBrief


class OneTransfer(TypedDict):
    transfer: TransferShown


def _of(path: str, prefix: str, since: int, /) -> tuple[Operation, ...]:
    """Return the operations below one of the two paths of transfers.

    :param prefix: the beginning of the operations' names.
    :param since: the minor version from which the API has the path.
    """

    @operation(f"{prefix}_list_transfers", "GET", path, since=since, query=_LISTING.query)
    async def list_transfers(context: CinderContext) -> TransfersBrief:
        """List the project's offers."""
        found = await _selected(context)
        shown: TransfersBrief = {"transfers": [_brief(each, context) for each in found.page]}
        if found.links:
            shown["transfers_links"] = found.links
        return shown

    @operation(f"{prefix}_list_details", "GET", f"{path}/detail", since=since, query=_LISTING.query)
    async def list_details(context: CinderContext) -> Transfers:
        """List the project's offers with their details."""
        found = await _selected(context)
        shown: Transfers = {"transfers": [_shown(each, context) for each in found.page]}
        if found.links:
            shown["transfers_links"] = found.links
        return shown

    @operation(
        f"{prefix}_create_transfer",
        "POST",
        path,
        status=202,
        entity="transfer",
        refusals=(404,),
        since=since,
    )
    async def create(context: CinderContext, body: Offer) -> OneTransfer:
        """Offer a volume to the project with the key of the answer."""
        volume_id = await context.row("volumes", body.volume_id)
        offered, key = await context.services.transfers.offer(
            context.caller, volume_id, body.name, no_snapshots=bool(body.no_snapshots)
        )
        shown = _shown(offered, context)
        shown["auth_key"] = key
        return {"transfer": shown}

    @operation(f"{prefix}_show_transfer", "GET", f"{path}/<uuid>", since=since)
    async def show(context: CinderContext, uuid: str) -> OneTransfer:
        """Show an offer of the project."""
        found = await context.services.transfers.get(context.caller, uuid)
        return {"transfer": _shown(found, context)}

    @operation(f"{prefix}_delete_transfer", "DELETE", f"{path}/<uuid>", status=202, since=since)
    async def delete(context: CinderContext, uuid: str) -> None:
        """Take an offer back."""
        await context.services.transfers.withdraw(context.caller, uuid)

    @operation(
        f"{prefix}_accept_transfer",
        "POST",
        f"{path}/<uuid>/accept",
        status=202,
        entity="accept",
        since=since,
    )
    async def accept(context: CinderContext, uuid: str, body: Accept) -> OneTransferBrief:
        """Take a volume that another project offers."""
        try:
            taken = await context.services.transfers.accept(context.caller, uuid, body.auth_key)
        except TransferKeyWrong:
            raise InvalidRequest(
                f"Invalid auth key: Attempt to transfer {uuid} with invalid auth key."
            ) from None
        return {"transfer": _brief(taken, context)}

    return (list_transfers, list_details, create, show, delete, accept)


async def _selected(context: CinderContext) -> Selected[Transfer]:
    """Return the offers that a list shows: a page of them from 3.59 on."""
    found = await context.services.transfers.listed(context.caller)
    if not context.has(PAGES):
        return Selected(found, [], None)
    return _LISTING.select(context, found)


def _brief(value: Transfer, context: CinderContext) -> TransferBrief:
    return {
        "id": value.uuid,
        "volume_id": value.volume_uuid,
        "name": value.name,
        "links": context.links(_PATH, value.uuid),
    }


def _shown(value: Transfer, context: CinderContext) -> TransferShown:
    shown: TransferShown = {
        "id": value.uuid,
        "created_at": time(value.created_at),
        "volume_id": value.volume_uuid,
        "name": value.name,
        "links": context.links(_PATH, value.uuid),
    }
    if context.has(NEW_PATH):
        shown["no_snapshots"] = value.no_snapshots
    if context.has(PROJECTS):
        shown["source_project_id"] = value.tenant
        # An accepted offer is gone.
        shown["destination_project_id"] = None
        shown["accepted"] = False
    return shown


OPERATIONS: Final = (
    *_of(_PATH, "transfers", 0),
    *_of("volume-transfers", "volume_transfers", NEW_PATH),
)
