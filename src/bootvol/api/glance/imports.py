"""Operations that import staged bytes, or bytes at a URL, into images."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from bootvol.api.bodies import BODY, Text, shown
from bootvol.api.context import RequestContext
from bootvol.api.glance.data import BYTES, check_media
from bootvol.api.glance.rights import rights_of
from bootvol.api.operations import operation
from bootvol.api.uploads import body_of
from bootvol.errors import Forbidden, InvalidRequest

#: The names of the ways.
STAGED: Final = "glance-direct"
URL: Final = "web-download"


class MethodBody(BaseModel):
    """The way of an import."""

    model_config = BODY

    name: Text
    uri: Annotated[str, Field(min_length=1, max_length=2048)] | None = None


class ImportBody(BaseModel):
    """An import.

    An image stays in the store that has its record, so the other members change nothing.
    """

    model_config = BODY

    method: MethodBody
    stores: Annotated[list[Text], Field(max_length=128)] | None = None
    all_stores: bool | None = None
    all_stores_must_succeed: bool | None = None


class Methods(TypedDict):
    """The ways of imports."""

    description: str
    type: str
    value: list[str]


#: The names are not names in Python.
ImportInfo = TypedDict("ImportInfo", {"import-methods": Methods})


class StoreShown(TypedDict, total=False):
    """A source that takes images."""

    id: str
    default: str


class Stores(TypedDict):
    """The sources that take images."""

    stores: list[StoreShown]


@operation(
    "images_stage_data",
    "PUT",
    "images/<image_id>/stage",
    status=204,
    takes=BYTES,
    streamed=True,
    refusals=(403, 408, 409, 413, 415, 503),
)
async def stage_data(context: RequestContext, image_id: str) -> None:
    """Upload the data of an image, to be imported later."""
    check_media(context.request)
    await context.services.stored_images.fill(
        context.caller, image_id, body_of(context.request), rights_of(context), staged=True
    )


@operation(
    "images_import_image",
    "POST",
    "images/<image_id>/import",
    status=202,
    refusals=(403, 409, 413, 415, 503),
)
async def import_image(context: RequestContext, image_id: str, body: ImportBody) -> None:
    """Import staged data, or data at a URL, into an image."""
    imports, method = context.services.image_imports, body.method
    stores, rights = body.stores or [], rights_of(context)
    if method.name == STAGED:
        await imports.import_staged(context.caller, image_id, stores, rights)
    elif method.name == URL and imports.reads_urls:
        if method.uri is None:
            raise InvalidRequest(f"Invalid input received: {URL} needs the uri of the image")
        await imports.import_url(context.caller, image_id, method.uri, stores, rights)
    else:
        raise InvalidRequest(f"Unknown import method name '{shown(method.name)}'.")


@operation("images_show_import_info", "GET", "info/import")
async def show_import_info(context: RequestContext) -> ImportInfo:
    """Show the ways of imports."""
    return {
        "import-methods": {
            "description": "Import methods available.",
            "type": "array",
            "value": ways(context),
        }
    }


def ways(context: RequestContext) -> list[str]:
    """Return the names of the ways of imports."""
    services = context.services
    if not services.stored_images.stores:
        return []
    return [STAGED, URL] if services.image_imports.reads_urls else [STAGED]


@operation("images_list_stores", "GET", "info/stores")
async def list_stores(context: RequestContext) -> Stores:
    """List the sources that take images; new images go to the default one."""
    names = context.services.stored_images.stores
    stores: list[StoreShown] = [{"id": name} for name in names]
    if stores:
        stores[0]["default"] = "true"
    return {"stores": stores}


@operation(
    "images_delete_from_store",
    "DELETE",
    "stores/<store>/<image_id>",
    status=204,
    refusals=(403, 503),
)
async def delete_from_store(context: RequestContext, store: str, image_id: str) -> None:
    """Refuse to delete the data of an image from one store: an image has only one."""
    await context.services.image_imports.check_only_store(
        context.caller, image_id, store, rights_of(context)
    )
    raise Forbidden("The image is in this store only. Delete the image instead.")


OPERATIONS = (
    stage_data,
    import_image,
    show_import_info,
    list_stores,
    delete_from_store,
)
