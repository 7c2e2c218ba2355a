"""Actions on objects: one key in the body names the action, and its value has the parameters."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final

import attrs
from pydantic import BaseModel, ConfigDict, RootModel

from bootvol.api.bodies import BODY
from bootvol.api.cinder.context import CinderContext
from bootvol.api.cinder.words import read_part
from bootvol.api.http import Reply
from bootvol.errors import InvalidRequest, NotFound
from bootvol.policy import Right


class Named(RootModel[dict[str, object]]):
    """The name of an action, with its parameters."""

    model_config = ConfigDict(strict=True)


class Nothing(BaseModel):
    """An action without parameters."""

    model_config = BODY


@attrs.frozen
class Action:
    """An action.

    :ivar name: the key in the body.
    :ivar model: the parameters.
    :ivar act: acts; takes the context, the object's number, and the parameters.
    :ivar right: the right that the action needs, in addition to the right to write; or None.
    :ivar since: the minor version from which the API has the action.
    """

    name: str
    model: type[BaseModel]
    act: Callable[..., Awaitable[Reply]]
    right: Right | None = None
    since: int = 0


class Actions:
    """The actions on one kind of object.

    :param actions: the actions; their names are unique.
    """

    def __init__(self, actions: Iterable[Action]) -> None:
        self._actions: Final[Mapping[str, Action]] = {each.name: each for each in actions}

    @property
    def since(self) -> Mapping[str, int]:
        """The first minor version with each action, by the actions' names."""
        return {name: each.since for name, each in self._actions.items()}

    async def act(self, context: CinderContext, number: int, body: Named) -> Reply:
        """Do as the name in the body says.

        :param number: the object's number.
        :raises InvalidRequest: if the body does not name exactly one action, or the parameters do
            not fit.
        :raises NotFound: if the microversion of the request does not have the action.
        :raises Forbidden: if the caller lacks the action's right.
        """
        if len(body.root) != 1:
            raise InvalidRequest("Malformed request body")
        ((name, given),) = body.root.items()
        action = self._actions.get(name)
        if action is None:
            raise InvalidRequest(
                f"There is no such action: {name[:255]}. Verify the request body and Content-Type"
                " header and try again."
            )
        if not context.has(action.since):
            raise NotFound
        if action.right is not None:
            context.policy.check(context.caller.roles, action.right)
        # gophercloud sends an empty text to actions without parameters.
        empty = given is None or (given == "" and action.model is Nothing)
        parameters = read_part(name, {} if empty else given, action.model)
        return await action.act(context, number, parameters)
