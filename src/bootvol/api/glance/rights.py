"""The rights of callers to images."""

from __future__ import annotations

from bootvol.api.context import RequestContext
from bootvol.errors import Forbidden
from bootvol.policy import Right
from bootvol.service.stored_images import ImageRights


def rights_of(context: RequestContext) -> ImageRights:
    """Return the rights of a request's caller beyond the images of the own tenant."""
    return ImageRights(
        publishes=_has(context, Right.PUBLIC_IMAGES), all_tenants=_has(context, Right.ALL_IMAGES)
    )


def _has(context: RequestContext, right: Right) -> bool:
    try:
        context.policy.check(context.caller.roles, right)
    except Forbidden:
        return False
    return True
