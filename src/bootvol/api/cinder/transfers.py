"""Operations of transfers of volumes between projects (docs/block-storage.md)."""

from __future__ import annotations

from typing import Final, NotRequired

from pydantic import BaseModel
from typing_extensions import TypedDict

from bootvol.api.bodies import BODY, Text
from bootvol.api.cinder.bodies import Name
from bootvol.api.cinder.context import CinderContext
from bootvol.api.cinder.views import Uuid, time
from bootvol.api.operations import operation
from bootvol.api.paging import Link
from bootvol.errors import InvalidRequest, TransferKeyWrong
from bootvol.model import Transfer

#: The first segment of the paths, also in links.
_PATH: Final = "os-volume-transfer"


class Offer(BaseModel):
    """The object ``transfer`` of a create request."""

    model_config = BODY

    volume_id: Text
    name: Name = None


class Accept(BaseModel):
    """The object ``accept`` of an acceptance."""

    model_config = BODY

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


class TransfersBrief(TypedDict):
    transfers: list[TransferBrief]


class Transfers(TypedDict):
    transfers: list[TransferShown]


class OneTransferBrief(TypedDict):
    transfer: TransferBrief


class OneTransfer(TypedDict):
    transfer: TransferShown


@operation("transfers_list_transfers", "GET", _PATH)
async def list_transfers(context: CinderContext) -> TransfersBrief:
    """List the project's offers."""
    found = await context.services.transfers.listed(context.caller)
    return {"transfers": [_brief(each, context) for each in found]}


@operation("transfers_list_details", "GET", f"{_PATH}/detail")
async def list_details(context: CinderContext) -> Transfers:
    """List the project's offers with their details."""
    found = await context.services.transfers.listed(context.caller)
    return {"transfers": [_shown(each, context) for each in found]}


@operation(
    "transfers_create_transfer", "POST", _PATH, status=202, entity="transfer", refusals=(404,)
)
async def create_transfer(context: CinderContext, body: Offer) -> OneTransfer:
    """Offer a volume to the project with the key of the answer."""
    volume_id = await context.row("volumes", body.volume_id)
    offered, key = await context.services.transfers.offer(context.caller, volume_id, body.name)
    shown = _shown(offered, context)
    shown["auth_key"] = key
    return {"transfer": shown}


@operation("transfers_show_transfer", "GET", f"{_PATH}/<uuid>")
async def show_transfer(context: CinderContext, uuid: str) -> OneTransfer:
    """Show an offer of the project."""
    return {"transfer": _shown(await context.services.transfers.get(context.caller, uuid), context)}


@operation("transfers_delete_transfer", "DELETE", f"{_PATH}/<uuid>", status=202)
async def delete_transfer(context: CinderContext, uuid: str) -> None:
    """Take an offer back."""
    await context.services.transfers.withdraw(context.caller, uuid)


@operation(
    "transfers_accept_transfer", "POST", f"{_PATH}/<uuid>/accept", status=202, entity="accept"
)
async def accept_transfer(context: CinderContext, uuid: str, body: Accept) -> OneTransferBrief:
    """Take a volume that another project offers."""
    try:
        taken = await context.services.transfers.accept(context.caller, uuid, body.auth_key)
    except TransferKeyWrong:
        raise InvalidRequest(
            f"Invalid auth key: Attempt to transfer {uuid} with invalid auth key."
        ) from None
    return {"transfer": _brief(taken, context)}


def _brief(value: Transfer, context: CinderContext) -> TransferBrief:
    return {
        "id": value.uuid,
        "volume_id": value.volume_uuid,
        "name": value.name,
        "links": context.links(_PATH, value.uuid),
    }


def _shown(value: Transfer, context: CinderContext) -> TransferShown:
    return {
        "id": value.uuid,
        "created_at": time(value.created_at),
        "volume_id": value.volume_uuid,
        "name": value.name,
        "links": context.links(_PATH, value.uuid),
    }


OPERATIONS = (
    list_transfers,
    list_details,
    create_transfer,
    show_transfer,
    delete_transfer,
    accept_transfer,
)
