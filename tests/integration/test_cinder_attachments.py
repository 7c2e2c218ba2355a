"""Attachments of the Block Storage API: volumes for servers of other systems."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from pytest_twisted import ensureDeferred

from tests.cinder import OF_NOVA, ask, daemon, made, recorded
from tests.daemons import Running

__all__ = ["daemon"]

SERVER: Final = "aaaaaaaa-0000-4000-8000-000000000001"
OTHER: Final = "aaaaaaaa-0000-4000-8000-000000000002"
HOST: Final = {"host": "compute1", "ip": "10.0.0.11", "mountpoint": "/dev/vdb"}
_PROTECTED: Final = (
    f"ConflictNovaUsingAttachment: Detach volume from instance {SERVER} using the Compute API"
)
_NO_HOST: Final = (
    "Invalid input for field/attribute connector. Value: {'no': 'host'}. 'host' is a required"
    " property"
)


def fault(status: int, message: str) -> tuple[int, object]:
    """Return an answer with an error."""
    kind = {400: "badRequest", 403: "forbidden", 409: "conflictingRequest"}[status]
    return status, {kind: {"code": status, "message": message}}


def corrected(name: str, number: int, status: int, reply: Any) -> tuple[int, object]:
    """Return an answer as bootvol gives it on purpose, for a recorded one."""
    if name == "cinder-attachments.json":
        if number == 22:
            # Cinder asks Nova, which knew no such server. bootvol does not ask.
            return fault(409, _PROTECTED)
        if number == 23:
            return 200, {"attachments": []}
        if number == 31:
            # Cinder forgets the mode of the first connector.
            return status, {"attachment": {**reply["attachment"], "attach_mode": "ro"}}
        if number == 55:
            return fault(400, _NO_HOST)
        if number == 61:
            # Cinder compares the filter with another column, and finds nothing.
            one = {"id": "{a4}", "status": "reserved", "instance": SERVER, "volume_id": "{volume}"}
            return 200, {"attachments": [one]}
    else:
        if number == 11:
            # Cinder fails with 500.
            why = "'x' is not of type 'object', 'null'"
            what = "Invalid input for field/attribute connector. Value: x. "
            return fault(400, what + why)
        if number == 14:
            # Cinder fails with 500. The client may have lost the first answer.
            return 202, None
        if number == 26:
            return fault(403, "Access was denied to this resource.")
    return status, reply


def shape(value: object) -> object:
    """Return an answer without what differs from time to time, and between backends."""
    if isinstance(value, list):
        return [shape(each) for each in value]
    if not isinstance(value, Mapping):
        return value
    if "volume" in value:
        kept = ("status", "attachments")
        return {"volume": shape({name: value["volume"][name] for name in kept})}
    return {name: _part(name, each) for name, each in value.items()}


def _part(name: str, value: object) -> object:
    if name == "connection_info":
        return "told" if value else {}
    if name in ("attached_at", "detached_at"):
        return "time" if value else value
    return shape(value)


async def replay(daemon: Running, name: str) -> list[tuple[object, ...]]:
    """Send recorded requests; return those with other answers than recorded."""
    ids = {"volume": await made(daemon, "volume", size=1)}
    wrong = list[tuple[object, ...]]()
    exchanges = recorded(name)
    for each in exchanges:
        sent = filled(each, ids)
        answer = await ask(
            daemon,
            sent["method"],
            f"{sent['path']}?{sent['query']}" if sent["query"] else sent["path"],
            sent["body"],
            who=sent["who"],
            version=sent["version"],
            headers=OF_NOVA if sent["served"] else None,
        )
        found = shape(answer.json) if answer.body else None
        status, reply = corrected(name, each["n"], each["status"], each["reply"])
        learn(ids, reply, found)
        expected = filled(reply, ids)
        if (answer.status, found) != (status, expected):
            wrong.append((each["n"], sent, status, expected, answer.status, found))
    assert len(exchanges) > 40
    return wrong


def filled(value: Any, ids: Mapping[str, str]) -> Any:
    """Return a part of a recording with the ids of this test."""
    text = json.dumps(value)
    for place, uuid in ids.items():
        text = text.replace(f"{{{place}}}", uuid)
    return json.loads(text)


def learn(ids: dict[str, str], recording: object, found: object) -> None:
    """Note the ids of attachments that an answer shows for the first time."""
    if isinstance(recording, Mapping) and isinstance(found, Mapping):
        for name, value in recording.items():
            learn(ids, value, found.get(name))
    elif isinstance(recording, list) and isinstance(found, list):
        for one, other in zip(recording, found, strict=False):
            learn(ids, one, other)
    elif isinstance(recording, str) and re.fullmatch(r"\{a[0-9]\}", recording):
        ids.setdefault(recording[1:-1], str(found))


@ensureDeferred
async def test_attachments_are_as_recorded(daemon: Running) -> None:
    wrong = await replay(daemon, "cinder-attachments.json")
    assert wrong == [], "\n".join(map(str, wrong))


@ensureDeferred
async def test_volumes_go_by_hand_as_recorded(daemon: Running) -> None:
    wrong = await replay(daemon, "cinder-attaching-by-hand.json")
    assert wrong == [], "\n".join(map(str, wrong))
