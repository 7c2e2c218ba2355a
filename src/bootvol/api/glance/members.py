"""Operations with the members of shared images."""

from __future__ import annotations

from typing import Final

from typing_extensions import TypedDict

from bootvol.api.context import RequestContext
from bootvol.api.glance.bodies import AnswerBody, MemberBody
from bootvol.api.glance.rights import rights_of
from bootvol.api.operations import operation
from bootvol.api.times import to_seconds
from bootvol.model import ImageMember

_REFUSALS: Final = (403, 409, 413, 503)
_MEMBERS: Final = "images/<image_id>/members"
_MEMBER: Final = "images/<image_id>/members/<member_id>"


class MemberShown(TypedDict):
    """A member of an image."""

    member_id: str
    image_id: str
    status: str
    created_at: str
    updated_at: str
    schema: str


class Members(TypedDict):
    """The members of an image."""

    members: list[MemberShown]
    schema: str


@operation("images_list_members", "GET", _MEMBERS, refusals=_REFUSALS)
async def list_members(context: RequestContext, image_id: str) -> Members:
    """List the members of an image."""
    found = await context.services.image_members.all(context.caller, image_id, rights_of(context))
    return {
        "members": [_shown(image_id, each) for each in found],
        "schema": "/v2/schemas/members",
    }


@operation("images_add_member", "POST", _MEMBERS, refusals=_REFUSALS)
async def add_member(context: RequestContext, image_id: str, body: MemberBody) -> MemberShown:
    """Share an image with a project."""
    new = await context.services.image_members.add(
        context.caller, image_id, body.member, rights_of(context)
    )
    return _shown(image_id, new)


@operation("images_show_member", "GET", _MEMBER, refusals=_REFUSALS)
async def show_member(context: RequestContext, image_id: str, member_id: str) -> MemberShown:
    """Show a member of an image."""
    found = await context.services.image_members.one(
        context.caller, image_id, member_id, rights_of(context)
    )
    return _shown(image_id, found)


@operation("images_update_member", "PUT", _MEMBER, refusals=_REFUSALS)
async def update_member(
    context: RequestContext, image_id: str, member_id: str, body: AnswerBody
) -> MemberShown:
    """Answer as a member to a shared image."""
    new = await context.services.image_members.answer(
        context.caller, image_id, member_id, body.answer, rights_of(context)
    )
    return _shown(image_id, new)


@operation("images_delete_member", "DELETE", _MEMBER, status=204, refusals=_REFUSALS)
async def delete_member(context: RequestContext, image_id: str, member_id: str) -> None:
    """Share an image with a project no more."""
    await context.services.image_members.remove(
        context.caller, image_id, member_id, rights_of(context)
    )


def _shown(image_id: str, member: ImageMember) -> MemberShown:
    return {
        "member_id": member.tenant,
        "image_id": image_id,
        "status": member.status.value,
        "created_at": to_seconds(member.created_at),
        "updated_at": to_seconds(member.updated_at),
        "schema": "/v2/schemas/member",
    }


OPERATIONS = (list_members, add_member, show_member, update_member, delete_member)
