"""The context of a request: what a handler needs beside the request's own parameters."""

from __future__ import annotations

import attrs
from twisted.web.iweb import IRequest

from bootvol.lifecycle import Kind
from bootvol.model import Caller
from bootvol.policy import Policy, Right
from bootvol.service.adoption import Adoptions
from bootvol.service.attachments import Attachments
from bootvol.service.failures import Failures
from bootvol.service.holding.by_hand import ByHand
from bootvol.service.holding.holds import Holds
from bootvol.service.ids import Ids
from bootvol.service.image_cache import CachedImages
from bootvol.service.image_imports import ImageImports
from bootvol.service.image_members import ImageMembers
from bootvol.service.images import Images
from bootvol.service.keypairs import KeyPairs
from bootvol.service.overview import Overview
from bootvol.service.qos_specs import QosRules
from bootvol.service.quotas import Quotas
from bootvol.service.rates import RateLimits
from bootvol.service.replacements import Replacements
from bootvol.service.resets import Resets
from bootvol.service.servers import Servers
from bootvol.service.sizes import Sizes
from bootvol.service.snapshots import Snapshots
from bootvol.service.stored_images import StoredImages
from bootvol.service.transfers import Transfers
from bootvol.service.volume_types import VolumeTypes
from bootvol.service.volume_uploads import VolumeUploads
from bootvol.service.volumes import Volumes


@attrs.frozen
class Services:
    """The use cases behind the operations of all dialects."""

    volumes: Volumes
    sizes: Sizes
    transfers: Transfers
    snapshots: Snapshots
    adoptions: Adoptions
    attachments: Attachments
    holds: Holds
    by_hand: ByHand
    servers: Servers
    images: Images
    cached_images: CachedImages
    types: VolumeTypes
    qos: QosRules
    quotas: Quotas
    rates: RateLimits
    key_pairs: KeyPairs
    ids: Ids
    stored_images: StoredImages
    volume_uploads: VolumeUploads
    resets: Resets
    failures: Failures
    overview: Overview
    image_members: ImageMembers
    image_imports: ImageImports
    replacements: Replacements


@attrs.frozen
class RequestContext:
    """The context of a request from an admitted caller.  A dialect may add to this class.

    :ivar policy: decides the rights that an operation needs in addition to its declared right.
    :ivar version: the version of the API in the request's path.
    """

    services: Services
    policy: Policy
    caller: Caller
    request: IRequest
    version: str

    @property
    def sees_types_of(self) -> str | None:
        """The tenant whose volume types the caller sees; None for the types of all tenants."""
        return (
            None
            if self.policy.grants(self.caller.roles, Right.VOLUME_TYPES)
            else self.caller.tenant
        )

    async def number(self, kind: Kind, named: int | str | None) -> int | None:
        """Return the number of the object that a request names by a number, digits or a uuid.

        :returns: None if ``named`` is None.  If the tenant has no such object, the result is a
            number without an object.
        """
        if named is None or isinstance(named, int):
            return named
        return await self.services.ids.number(self.caller, kind, named)
