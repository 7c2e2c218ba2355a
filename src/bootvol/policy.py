"""Who may do what: the rights that calls ask for, and the roles that give them."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from bootvol.errors import Forbidden
from bootvol.options import Options


class Right(StrEnum):
    """What a call asks of its caller; the names are keys of ``[policy]``.

    Beyond the tenant of the caller's token only those lead that say so.
    """

    #: See what the tenant has, and what there is for everybody.
    READ = "read"
    #: Create, change and delete what the tenant has.
    WRITE = "write"
    #: Learn where a volume lives, as hypervisors must.
    CONNECTION = "connection"
    #: Create, change and delete volume types, which are everybody's.
    VOLUME_TYPES = "volume_types"
    #: See and set what any tenant may have.
    QUOTAS = "quotas"
    #: See which images are kept, whoever's volumes they were for.
    GOLDEN_VOLUMES = "golden_volumes"
    #: See and revoke anybody's tokens, where bootvol itself gives them out.
    TOKENS = "tokens"


_Roles = list[Annotated[str, Field(min_length=1, max_length=255)]]
_WRITERS = ["member", "_member_", "admin"]
_OPERATORS = ["admin"]


class Policy(Options):
    """``[policy]``: for each right, the roles any of which gives it; an empty list is nobody's."""

    read: _Roles = Field(default=["reader", *_WRITERS])
    write: _Roles = Field(default=_WRITERS)
    connection: _Roles = Field(default=_OPERATORS)
    volume_types: _Roles = Field(default=_OPERATORS)
    quotas: _Roles = Field(default=_OPERATORS)
    golden_volumes: _Roles = Field(default=_OPERATORS)
    tokens: _Roles = Field(default=_OPERATORS)

    def check(self, roles: Collection[str], right: Right) -> None:
        """See whether one of ``roles`` gives a right; upper and lower case are the same.

        :raises Forbidden: none does.
        """
        given: _Roles = getattr(self, right)
        if {role.lower() for role in roles}.isdisjoint(role.lower() for role in given):
            raise Forbidden
