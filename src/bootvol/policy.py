"""The rights required by API calls, and the roles that grant them."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from bootvol.errors import Forbidden
from bootvol.options import Options


class Right(StrEnum):
    """A right, required by a call of its caller.  The names are the keys of ``[policy]``.

    A right covers only the tenant of the caller's token, unless its comment says otherwise.
    """

    #: Read the tenant's objects, and the objects that are for everybody.
    READ = "read"
    #: Create, change and delete the tenant's objects.
    WRITE = "write"
    #: Read where a volume is stored.  Hypervisors need this right.
    CONNECTION = "connection"
    #: Create, change and delete volume types.  These belong to all tenants.
    VOLUME_TYPES = "volume_types"
    #: Read and set the quota of any tenant.
    QUOTAS = "quotas"
    #: List, show, change and delete the volumes and snapshots of all tenants, in the Block Storage
    #: API.
    ALL_TENANTS = "all_tenants"
    #: Delete volumes by force, as Cinder's clients say.
    FORCE = "force"
    #: See the daemons and their backends, and change their work.
    SERVICES = "services"
    #: Set the status of a volume or snapshot.
    RESET_STATUS = "reset_status"
    #: Take over the disks of other programs as volumes and snapshots, and give volumes up.
    MANAGE = "manage"
    #: Free volumes that servers of another service use: for the token of that service itself.
    FOREIGN_SERVERS = "foreign_servers"
    #: List the cached images (golden volumes) of all tenants.
    GOLDEN_VOLUMES = "golden_volumes"
    #: Make an image of the tenant public, for all tenants.
    PUBLIC_IMAGES = "public_images"
    #: See, change and delete the images of all tenants, and give images to other tenants.
    ALL_IMAGES = "all_images"
    #: Read and revoke any user's tokens, if bootvol itself issues them.
    TOKENS = "tokens"
    #: See all users and all projects, if bootvol itself knows them.
    USERS = "users"


_Roles = list[Annotated[str, Field(min_length=1, max_length=255)]]
_WRITERS = ["member", "_member_", "admin"]
_OPERATORS = ["admin"]


class Policy(Options):
    """The table ``[policy]``: for each right, the roles with this right.

    An empty list grants nobody.
    """

    read: _Roles = Field(default=["reader", *_WRITERS])
    write: _Roles = Field(default=_WRITERS)
    connection: _Roles = Field(default=_OPERATORS)
    volume_types: _Roles = Field(default=_OPERATORS)
    quotas: _Roles = Field(default=_OPERATORS)
    all_tenants: _Roles = Field(default=_OPERATORS)
    force: _Roles = Field(default=_OPERATORS)
    services: _Roles = Field(default=_OPERATORS)
    reset_status: _Roles = Field(default=_OPERATORS)
    manage: _Roles = Field(default=_OPERATORS)
    foreign_servers: _Roles = Field(default=["service"])
    golden_volumes: _Roles = Field(default=_OPERATORS)
    public_images: _Roles = Field(default=_OPERATORS)
    all_images: _Roles = Field(default=_OPERATORS)
    tokens: _Roles = Field(default=_OPERATORS)
    users: _Roles = Field(default=_OPERATORS)

    @property
    def known(self) -> frozenset[str]:
        """All roles with a right, in lower case."""
        return frozenset(role.lower() for right in Right for role in getattr(self, right))

    def check(self, roles: Collection[str], right: Right) -> None:
        """Check whether one of ``roles`` grants a right.  Upper and lower case are the same.

        :raises Forbidden: if no role grants the right.
        """
        if not self.grants(roles, right):
            raise Forbidden

    def grants(self, roles: Collection[str], right: Right) -> bool:
        """Return whether one of ``roles`` grants a right.  Upper and lower case are the same."""
        given: _Roles = getattr(self, right)
        return not {role.lower() for role in roles}.isdisjoint(role.lower() for role in given)
