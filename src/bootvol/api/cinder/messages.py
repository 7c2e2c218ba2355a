"""Operations of messages: why work failed (docs/block-storage.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NotRequired

from typing_extensions import TypedDict

from bootvol.api.cinder.context import CinderContext
from bootvol.api.cinder.filter_names import OPEN
from bootvol.api.cinder.lists import Listing
from bootvol.api.cinder.views import Uuid, time
from bootvol.api.operations import operation
from bootvol.api.paging import Link
from bootvol.errors import (
    FailureNotFound,
    ImageTooLarge,
    NoFittingBackend,
    NoSpace,
    QuotaExceeded,
)
from bootvol.lifecycle import Kind, Status
from bootvol.model import Failure

#: The minor versions with messages, and with pages of them.
SINCE: Final = 3
PAGES: Final = 5
_PATH: Final = "messages"
_LEVEL: Final = "ERROR"

#: Cinder's numbers and names of actions, by the statuses of volumes during the action.
_OF_VOLUMES: Final[Mapping[Status, tuple[str, str]]] = {
    Status.CREATING: ("008", "create volume from backend storage"),
    Status.DOWNLOADING: ("005", "copy image to volume"),
    Status.ATTACHING: ("002", "attach volume"),
    Status.EXTENDING: ("007", "extend volume"),
    Status.UPLOADING: ("003", "copy volume to image"),
}
_SCHEDULING: Final = ("001", "schedule allocate volume")
_IMPORT: Final = _OF_VOLUMES[Status.DOWNLOADING]
_OF_SNAPSHOTS: Final[Mapping[Status, tuple[str, str]]] = {
    Status.CREATING: ("009", "snapshot create"),
    Status.DELETING: ("010", "snapshot delete"),
}
#: Cinder has no number for other actions.
_OTHER: Final = "000"
#: Cinder's numbers of reasons, by the codes of errors.
_REASONS: Final[Mapping[str, str]] = {
    NoFittingBackend.code: "002",
    NoSpace.code: "003",
    QuotaExceeded.code: "006",
    ImageTooLarge.code: "007",
}
_UNKNOWN: Final = "001"


class MessageShown(TypedDict):
    """A message: the reason of a failure, in words."""

    id: Uuid
    event_id: str
    user_message: str
    message_level: str
    created_at: str
    guaranteed_until: str
    request_id: str
    links: list[Link]
    resource_type: str
    resource_uuid: Uuid


class Messages(TypedDict):
    messages: list[MessageShown]
    messages_links: NotRequired[list[Link]]


class OneMessage(TypedDict):
    message: MessageShown


def _action(value: Failure) -> tuple[str, str]:
    """Return Cinder's number and name of the failed work."""
    if value.error.code == NoFittingBackend.code:
        return _SCHEDULING
    if value.of_image:
        return _IMPORT
    known = _OF_VOLUMES if value.kind is Kind.VOLUME else _OF_SNAPSHOTS
    return known.get(value.status, (_OTHER, f"work on the {value.kind}"))


def _type(value: Failure) -> str:
    return "VOLUME" if value.kind is Kind.VOLUME else "VOLUME_SNAPSHOT"


def _event(value: Failure) -> str:
    number, _ = _action(value)
    return f"VOLUME_{_type(value)}_{number}_{_REASONS.get(value.error.code, _UNKNOWN)}"


_LISTING: Final = Listing[Failure](
    key=lambda each: each.uuid,
    missing=FailureNotFound,
    filters={
        "resource_uuid": lambda each, value: each.object_uuid == value,
        "resource_type": lambda each, value: _type(each) == value.upper(),
        "event_id": lambda each, value: _event(each) == value,
        "request_id": lambda each, value: each.request_id == value,
        "message_level": lambda each, value: value.upper() == _LEVEL,
    },
    sorted_by={
        "id": lambda each: each.id,
        "created_at": lambda each: each.created_at,
        "event_id": _event,
        "guaranteed_until": lambda each: each.expires_at,
        "message_level": lambda each: _LEVEL,
        "request_id": lambda each: each.request_id,
        "resource_type": _type,
        "resource_uuid": lambda each: each.object_uuid,
    },
    open=OPEN["message"],
)


def _shown(value: Failure, context: CinderContext) -> MessageShown:
    _, action = _action(value)
    return {
        "id": value.uuid,
        "event_id": _event(value),
        "user_message": f"{action}: {value.error.message} {value.error.remedy}",
        "message_level": _LEVEL,
        "created_at": time(value.created_at),
        "guaranteed_until": time(value.expires_at),
        "request_id": value.request_id,
        "links": context.links(_PATH, value.uuid),
        "resource_type": _type(value),
        "resource_uuid": value.object_uuid,
    }


@operation(
    "messages_list_messages", "GET", _PATH, since=SINCE, query=_LISTING.query, refusals=(404,)
)
async def list_messages(context: CinderContext) -> Messages:
    """List why work of the project failed."""
    found = await context.services.failures.listed(context.caller)
    if not context.has(PAGES):
        return {"messages": [_shown(each, context) for each in reversed(found)]}
    selected = _LISTING.select(context, found)
    shown: Messages = {"messages": [_shown(each, context) for each in selected.page]}
    if selected.links:
        shown["messages_links"] = selected.links
    return shown


@operation("messages_show_message", "GET", f"{_PATH}/<uuid>", since=SINCE)
async def show_message(context: CinderContext, uuid: str) -> OneMessage:
    """Show why some work of the project failed."""
    found = await context.services.failures.get(context.caller, uuid)
    return {"message": _shown(found, context)}


@operation("messages_delete_message", "DELETE", f"{_PATH}/<uuid>", status=204, since=SINCE)
async def delete_message(context: CinderContext, uuid: str) -> None:
    """Forget a message."""
    await context.services.failures.forget(context.caller, uuid)


OPERATIONS = (list_messages, show_message, delete_message)
