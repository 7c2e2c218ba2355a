"""Operations of the parts of Cinder that bootvol does not have: nothing of theirs exists.

Clients look for groups, backups and clusters before they do other work.  So lists are empty, and
objects are missing, as in a Cinder where nobody has made any.  docs/api-compatibility.md gives the
reasons.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs
from pydantic import ConfigDict, RootModel

from bootvol.api.cinder.context import CinderContext
from bootvol.api.operations import Operation, operation
from bootvol.errors import NotFound, NotServed
from bootvol.policy import Right


class Anything(RootModel[dict[str, object]]):
    """A body that nobody reads."""

    model_config = ConfigDict(strict=True)


@attrs.frozen
class Absent:
    """A kind of objects that do not exist.

    :ivar path: the path of the list, and the beginning of all paths.
    :ivar members: the name of the list in the answer.
    :ivar missing: returns the message about an object, from its id.
    :ivar since: the minor version from which Cinder has the kind.
    :ivar details: whether Cinder has a second list, with details.
    :ivar right: the right to look; None for the right to read.
    :ivar refusal: the reason why nobody can make an object; None if Cinder has no call for this.
    """

    path: str
    members: str
    missing: Callable[[str], str]
    since: int = 0
    details: bool = False
    right: Right | None = None
    refusal: str | None = None


def _message(kind: str) -> Callable[[str], str]:
    return lambda named: f"{kind} {named} could not be found."


_GROUPS: Final = "This service has no groups: make a snapshot of each volume."
_BACKUPS: Final = "This service has no backups: make snapshots, or upload volumes as images."
_KINDS: Final = (
    Absent("backups", "backups", _message("Backup"), details=True, refusal=_BACKUPS),
    Absent("groups", "groups", _message("Group"), 13, details=True, refusal=_GROUPS),
    Absent(
        "group_snapshots",
        "group_snapshots",
        _message("GroupSnapshot"),
        14,
        details=True,
        refusal=_GROUPS,
    ),
    Absent("group_types", "group_types", _message("Group type"), 11, refusal=_GROUPS),
    Absent(
        "consistencygroups",
        "consistencygroups",
        _message("ConsistencyGroup"),
        details=True,
        refusal=_GROUPS,
    ),
    Absent("cgsnapshots", "cgsnapshots", _message("CgSnapshot"), details=True, refusal=_GROUPS),
    Absent(
        "clusters",
        "clusters",
        lambda named: f"Cluster {{'name': '{named}'}} could not be found.",
        7,
        details=True,
        right=Right.SERVICES,
    ),
)


def _of(kind: Absent, /) -> tuple[Operation, ...]:
    """Return the operations of a kind."""
    prefix = kind.path
    made: list[Operation] = []

    async def listed(context: CinderContext) -> dict[str, list[None]]:
        """List nothing: this service has no such objects."""
        return {kind.members: []}

    paths = {f"{prefix}_list": prefix}
    if kind.details:
        paths[f"{prefix}_list_details"] = f"{prefix}/detail"
    for name, path in paths.items():
        made.append(operation(name, "GET", path, since=kind.since, right=kind.right)(listed))

    @operation(
        f"{prefix}_show",
        "GET",
        f"{prefix}/<named>",
        since=kind.since,
        right=kind.right,
        refusals=(404,),
    )
    async def show(context: CinderContext, named: str) -> dict[str, None]:
        """Tell that no such object exists."""
        raise NotFound(kind.missing(named))

    made.append(show)
    if kind.refusal is not None:

        @operation(f"{prefix}_create", "POST", prefix, since=kind.since, refusals=(501,))
        async def create(context: CinderContext, body: Anything) -> dict[str, None]:
            """Refuse to make such an object, with the reason."""
            raise NotServed(kind.refusal)

        made.append(create)
    return tuple(made)


@operation("group_types_show_default", "GET", "group_types/default", since=11, refusals=(404,))
async def show_default_group_type(context: CinderContext) -> dict[str, None]:
    """Tell that there is no default type of groups."""
    raise NotFound("Default group type can not be found.")


OPERATIONS: Final = (
    *(each for kind in _KINDS for each in _of(kind)),
    show_default_group_type,
)
