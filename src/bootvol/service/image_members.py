"""Members of shared images: the tenants that an owner shares an image with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import attrs

from bootvol.errors import (
    Forbidden,
    ImageMemberExists,
    ImageMemberNotFound,
    ImageNotFound,
    QuotaExceeded,
)
from bootvol.model import Caller, ImageMember, ImageRecord, MemberStatus, Visibility
from bootvol.service.stored_images import ImageRights, StoredImage, StoredImages

#: The most members of an image, the same as Glance's.
MOST_MEMBERS: Final = 128

#: Returns the new members of an image for the current record.
_Members = Callable[[ImageRecord], tuple[ImageMember, ...]]


class ImageMembers:
    """The members of images.  The owner chooses them, and each member answers for itself.

    :param stored: the images.
    :param now: returns the seconds since 1970.
    """

    def __init__(self, stored: StoredImages, now: Callable[[], float]) -> None:
        self._stored = stored
        self._now = now

    async def all(
        self, caller: Caller, image_id: str, rights: ImageRights
    ) -> Sequence[ImageMember]:
        """Return the members of an image; a member sees no other member.

        :raises ImageNotFound: if no store has an image for the caller.
        :raises Forbidden: if the image is not shared.
        """
        record = (await self._shared(caller, image_id, rights)).record
        if record.owner == caller.tenant or rights.all_tenants:
            return record.members
        return [each for each in record.members if each.tenant == caller.tenant]

    async def one(
        self, caller: Caller, image_id: str, tenant: str, rights: ImageRights
    ) -> ImageMember:
        """Return a member.

        :raises ImageNotFound: if no store has an image for the caller.
        :raises ImageMemberNotFound: if the image has no such member, or the caller is another one.
        :raises Forbidden: if the image is not shared.
        """
        for each in await self.all(caller, image_id, rights):
            if each.tenant == tenant:
                return each
        raise ImageMemberNotFound(image_id, tenant)

    async def add(
        self, caller: Caller, image_id: str, tenant: str, rights: ImageRights
    ) -> ImageMember:
        """Share an image with a tenant.

        :raises ImageNotFound: if no store has an image for the caller.
        :raises Forbidden: if the image belongs to another tenant, or is not shared.
        :raises ImageMemberExists: if the tenant is a member.
        :raises QuotaExceeded: if the image has too many members.
        """
        now = self._now()
        new = ImageMember(tenant, MemberStatus.PENDING, now, now)

        def added(record: ImageRecord) -> tuple[ImageMember, ...]:
            if record.member(tenant) is not None:
                raise ImageMemberExists(image_id, tenant)
            if len(record.members) >= MOST_MEMBERS:
                raise QuotaExceeded(f"An image may have {MOST_MEMBERS} members.")
            return (*record.members, new)

        await self._stored.owned(caller, image_id, rights)
        await self._change(caller, image_id, added, rights)
        return new

    async def answer(
        self, caller: Caller, image_id: str, tenant: str, status: MemberStatus, rights: ImageRights
    ) -> ImageMember:
        """Answer as a member to a shared image.

        :raises ImageNotFound: if no store has an image for the caller.
        :raises ImageMemberNotFound: if the image has no such member, or the caller is another one.
        :raises Forbidden: if the image is not shared, or the caller is the owner.
        """
        former = await self.one(caller, image_id, tenant, rights)
        if tenant != caller.tenant and not rights.all_tenants:
            raise Forbidden("Only the member itself answers to a shared image.")
        new = attrs.evolve(former, status=status, updated_at=self._now())

        def answered(record: ImageRecord) -> tuple[ImageMember, ...]:
            if record.member(tenant) is None:
                raise ImageMemberNotFound(image_id, tenant)
            return tuple(new if each.tenant == tenant else each for each in record.members)

        await self._change(caller, image_id, answered, rights)
        return new

    async def remove(self, caller: Caller, image_id: str, tenant: str, rights: ImageRights) -> None:
        """Share an image with a tenant no more.

        :raises ImageNotFound: if no store has an image for the caller.
        :raises ImageMemberNotFound: if the image has no such member.
        :raises Forbidden: if the image belongs to another tenant, or is not shared.
        """

        def removed(record: ImageRecord) -> tuple[ImageMember, ...]:
            if record.member(tenant) is None:
                raise ImageMemberNotFound(image_id, tenant)
            return tuple(each for each in record.members if each.tenant != tenant)

        await self._stored.owned(caller, image_id, rights)
        await self._change(caller, image_id, removed, rights)

    async def _shared(self, caller: Caller, image_id: str, rights: ImageRights) -> StoredImage:
        """Return a shared image that the caller may see."""
        found = await self._stored.record(caller, image_id, rights)
        if found is None:
            raise ImageNotFound(image_id)
        _check_shared(found.record)
        return found

    async def _change(
        self, caller: Caller, image_id: str, changed: _Members, rights: ImageRights
    ) -> None:
        found = await self._shared(caller, image_id, rights)

        def with_members(record: ImageRecord) -> ImageRecord:
            _check_shared(record)
            return attrs.evolve(record, members=changed(record))

        await self._stored.replace(caller, found.store, image_id, with_members, rights)


def _check_shared(record: ImageRecord) -> None:
    """Check that an image may have members.

    :raises Forbidden: if the image is not shared.
    """
    if record.visibility is not Visibility.SHARED:
        raise Forbidden("Only shared images have members.")
