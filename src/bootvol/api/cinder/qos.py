"""Operations of limits of speed, Cinder's QoS specs (docs/block-storage.md)."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from bootvol.api.bodies import BODY, Text
from bootvol.api.cinder.context import CinderContext
from bootvol.api.cinder.default_type import DEFAULT
from bootvol.api.cinder.lists import Listing
from bootvol.api.cinder.matching import flag
from bootvol.api.cinder.views import Uuid
from bootvol.api.filters import text
from bootvol.api.operations import operation
from bootvol.api.paging import Link
from bootvol.errors import InvalidRequest, NotFound, QosSpecsNotFound
from bootvol.model import Consumer, QosSpecs
from bootvol.policy import Right

_RIGHT: Final = Right.VOLUME_TYPES
_LISTING: Final = Listing[QosSpecs](
    key=lambda each: each.uuid,
    missing=QosSpecsNotFound,
    filters={
        "id": lambda each, value: each.uuid == value,
        "name": lambda each, value: each.name == value,
        "consumer": lambda each, value: each.consumer == value,
    },
    sorted_by={
        "id": lambda each: each.id,
        "created_at": lambda each: each.id,
        "name": lambda each: each.name,
    },
    refuses=False,
)


class _Limits(BaseModel):
    """Limits stand beside the other members of the body: their names are free."""

    model_config = ConfigDict(extra="allow", strict=True)
    __pydantic_extra__: dict[str, Annotated[Text, Field(max_length=255)]]

    consumer: Annotated[Consumer | None, Field(strict=False)] = None

    @property
    def specs(self) -> dict[str, str]:
        """The limits."""
        return dict(self.__pydantic_extra__)


class CreateQos(_Limits):
    """The object ``qos_specs`` of a create request."""

    name: Annotated[Text, Field(min_length=1)]


class ChangeQos(_Limits):
    """The object ``qos_specs`` of an update."""


class Keys(BaseModel):
    """The names of limits."""

    model_config = BODY

    keys: list[Text]


class QosShown(TypedDict):
    """Limits of speed."""

    id: Uuid
    name: str
    consumer: str
    specs: dict[str, str]


class QosList(TypedDict):
    qos_specs: list[QosShown]


class OneQos(TypedDict):
    qos_specs: QosShown
    links: list[Link]


class ChangedQos(TypedDict):
    qos_specs: dict[str, str]


class Association(TypedDict):
    """A volume type with the limits."""

    association_type: str
    name: str
    id: Uuid


class Associations(TypedDict):
    qos_associations: list[Association]


def _shown(value: QosSpecs) -> QosShown:
    return {
        "id": value.uuid,
        "name": value.name,
        "consumer": value.consumer,
        "specs": dict(value.specs),
    }


def _one(context: CinderContext, value: QosSpecs) -> OneQos:
    return {"qos_specs": _shown(value), "links": context.links("qos-specs", value.uuid)}


async def _type(context: CinderContext) -> int:
    """Return the number of the type in the query.

    :raises InvalidRequest: if the query names no type.
    :raises NotFound: if there is no such type.
    """
    named = text(context.request, b"vol_type_id")
    if named is None:
        raise InvalidRequest("Volume Type id must not be None.")
    if named == DEFAULT.uuid:
        raise InvalidRequest(f"{DEFAULT.name} has no limits: volumes without a type have none.")
    return (await context.services.types.of_uuid(named, None)).id


@operation("qos_list_qos", "GET", "qos-specs", query=_LISTING.query, right=_RIGHT)
async def list_qos(context: CinderContext) -> QosList:
    """List the limits of speed."""
    found = _LISTING.select(context, await context.services.qos.listed())
    return {"qos_specs": [_shown(each) for each in found.page]}


@operation("qos_create_qos", "POST", "qos-specs", entity="qos_specs", right=_RIGHT, refusals=(409,))
async def create_qos(context: CinderContext, body: CreateQos) -> OneQos:
    """Create limits of speed."""
    consumer = body.consumer or Consumer.BACK_END
    return _one(context, await context.services.qos.create(body.name, consumer, body.specs))


@operation("qos_show_qos", "GET", "qos-specs/<uuid>", right=_RIGHT, refusals=(404,))
async def show_qos(context: CinderContext, uuid: str) -> OneQos:
    """Show limits of speed."""
    return _one(context, await context.services.qos.get(uuid))


@operation(
    "qos_change_qos", "PUT", "qos-specs/<uuid>", entity="qos_specs", right=_RIGHT, refusals=(404,)
)
async def change_qos(context: CinderContext, uuid: str, body: ChangeQos) -> ChangedQos:
    """Set some limits; the others stay."""
    await context.services.qos.change(uuid, body.consumer, body.specs)
    consumer = {} if body.consumer is None else {"consumer": str(body.consumer)}
    return {"qos_specs": {**body.specs, **consumer}}


@operation(
    "qos_delete_qos",
    "DELETE",
    "qos-specs/<uuid>",
    status=202,
    query=("force",),
    right=_RIGHT,
    refusals=(404,),
)
async def delete_qos(context: CinderContext, uuid: str) -> None:
    """Delete limits; ``force=True`` takes them from their types first."""
    force = flag(text(context.request, b"force") or "false", "force")
    await context.services.qos.delete(uuid, force=force)


@operation(
    "qos_delete_keys",
    "PUT",
    "qos-specs/<uuid>/delete_keys",
    status=202,
    right=_RIGHT,
    refusals=(404,),
)
async def delete_keys(context: CinderContext, uuid: str, body: Keys) -> None:
    """Remove some limits."""
    missing = await context.services.qos.forget(uuid, body.keys)
    for each in missing:
        raise NotFound(f"QoS spec {uuid} has no spec with key {each}.")


@operation(
    "qos_list_associations", "GET", "qos-specs/<uuid>/associations", right=_RIGHT, refusals=(404,)
)
async def list_associations(context: CinderContext, uuid: str) -> Associations:
    """List the volume types with the limits."""
    shown: list[Association] = [
        {"association_type": "volume_type", "name": each.name, "id": each.uuid}
        for each in await context.services.qos.types_of(uuid)
    ]
    return {"qos_associations": shown}


# Cinder changes by GET here, so its clients do so.
@operation(
    "qos_associate",
    "GET",
    "qos-specs/<uuid>/associate",
    status=202,
    query=("vol_type_id",),
    right=_RIGHT,
    refusals=(404,),
)
async def associate(context: CinderContext, uuid: str) -> None:
    """Give the limits to a volume type."""
    await context.services.qos.associate(uuid, await _type(context))


@operation(
    "qos_disassociate",
    "GET",
    "qos-specs/<uuid>/disassociate",
    status=202,
    query=("vol_type_id",),
    right=_RIGHT,
    refusals=(404,),
)
async def disassociate(context: CinderContext, uuid: str) -> None:
    """Take the limits from a volume type."""
    await context.services.qos.release(uuid, await _type(context))


@operation(
    "qos_disassociate_all",
    "GET",
    "qos-specs/<uuid>/disassociate_all",
    status=202,
    right=_RIGHT,
    refusals=(404,),
)
async def disassociate_all(context: CinderContext, uuid: str) -> None:
    """Take the limits from all volume types."""
    await context.services.qos.release(uuid, None)


OPERATIONS = (
    list_qos,
    create_qos,
    show_qos,
    change_qos,
    delete_qos,
    delete_keys,
    list_associations,
    associate,
    disassociate,
    disassociate_all,
)
