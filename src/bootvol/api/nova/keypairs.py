"""Operations of os-keypairs: a user's key pairs, as in Nova.  Guests get them on a config drive."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired

from pydantic import BaseModel, BeforeValidator
from typing_extensions import TypedDict

from bootvol.api.bodies import BODY, Text, absent_if_empty
from bootvol.api.filters import filtered
from bootvol.api.nova.context import NovaContext
from bootvol.api.nova.views import Moment
from bootvol.api.operations import operation
from bootvol.api.paging import Link, paged
from bootvol.api.times import to_seconds
from bootvol.model import KeyPair


class CreateKeyPair(BaseModel):
    """The object ``keypair`` of a create request."""

    model_config = BODY

    name: Text
    public_key: Annotated[str | None, BeforeValidator(absent_if_empty, str | None)] = None
    type: Literal["ssh"] | None = None


class KeyPairShown(TypedDict):
    """A key pair."""

    name: str
    public_key: str
    fingerprint: str


class KeyPairInList(TypedDict):
    keypair: KeyPairShown


class NewKeyPairShown(KeyPairShown):
    """A new key pair, with the private key if bootvol made it.  bootvol does not store that key."""

    user_id: str
    private_key: NotRequired[str]


class KeyPairInDetail(KeyPairShown):
    """A key pair, with the time of its creation."""

    id: int
    user_id: str
    created_at: Moment
    updated_at: None
    deleted: Literal[False]
    deleted_at: None


class KeyPairs(TypedDict):
    keypairs: list[KeyPairInList]
    keypairs_links: NotRequired[list[Link]]


class NewKeyPair(TypedDict):
    keypair: NewKeyPairShown


class OneKeyPair(TypedDict):
    keypair: KeyPairInDetail


@operation("keypairs_list_key_pairs", "GET", "os-keypairs", query=("limit", "marker", "offset"))
async def list_key_pairs(context: NovaContext) -> KeyPairs:
    """List the caller's key pairs, by name."""
    found = await context.services.key_pairs.listed(context.caller)
    found = filtered(context.request, found, {"user_id": lambda each, text: each.user == text})
    listed, links = paged(context.request, found, lambda each: each.name)
    shown: KeyPairs = {"keypairs": [{"keypair": _shown(each)} for each in listed]}
    if links:
        shown["keypairs_links"] = links
    return shown


@operation("keypairs_create_key_pair", "POST", "os-keypairs", entity="keypair", refusals=(409, 413))
async def create_key_pair(context: NovaContext, body: CreateKeyPair) -> NewKeyPair:
    """Create a key pair, or import a public key."""
    made, private = await context.services.key_pairs.create(
        context.caller, body.name, body.public_key
    )
    shown: NewKeyPairShown = {
        "name": made.name,
        "public_key": made.public_key,
        "fingerprint": made.fingerprint,
        "user_id": made.user,
    }
    if private is not None:
        shown["private_key"] = private
    return {"keypair": shown}


@operation("keypairs_show_key_pair", "GET", "os-keypairs/<key_name>", named=True)
async def show_key_pair(context: NovaContext, key_name: str) -> OneKeyPair:
    """Show one of the caller's key pairs."""
    found = await context.services.key_pairs.get(context.caller, key_name)
    return {
        "keypair": {
            **_shown(found),
            "id": found.id,
            "user_id": found.user,
            "created_at": to_seconds(found.created_at),
            "updated_at": None,
            "deleted": False,
            "deleted_at": None,
        }
    }


@operation("keypairs_delete_key_pair", "DELETE", "os-keypairs/<key_name>", status=202, named=True)
async def delete_key_pair(context: NovaContext, key_name: str) -> None:
    """Delete one of the caller's key pairs; servers with the key keep it."""
    await context.services.key_pairs.delete(context.caller, key_name)


def _shown(value: KeyPair) -> KeyPairShown:
    return {
        "name": value.name,
        "public_key": value.public_key,
        "fingerprint": value.fingerprint,
    }


OPERATIONS = (list_key_pairs, create_key_pair, show_key_pair, delete_key_pair)
