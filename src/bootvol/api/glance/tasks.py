"""Operations that show imports as Glance's tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from typing_extensions import TypedDict

from bootvol.api.context import RequestContext
from bootvol.api.filters import text
from bootvol.api.glance.imports import STAGED, URL
from bootvol.api.glance.rights import rights_of
from bootvol.api.operations import operation
from bootvol.api.paging import after
from bootvol.api.times import to_seconds
from bootvol.errors import InvalidRequest, NotFound, without_query
from bootvol.jsons import JsonObject
from bootvol.model import ImageFetch
from bootvol.service.stored_images import StoredImage

#: The type of all tasks.
_TYPE: Final = "api_image_import"
#: The most tasks in one answer.
_MOST: Final = 1000
#: The sort keys of a list.
_KEYS: Final = ("created_at", "expires_at", "id", "status", "type", "updated_at")


class TaskShown(TypedDict):
    """An import and its end."""

    id: str
    type: str
    status: str
    owner: str
    input: JsonObject
    result: JsonObject | None
    message: str
    image_id: str
    request_id: str
    user_id: str
    created_at: str
    updated_at: str
    expires_at: str | None
    self: str
    schema: str


class TasksOfImage(TypedDict):
    """The imports of an image."""

    tasks: list[TaskShown]


class Tasks(TypedDict):
    """A page of the imports of a project."""

    tasks: list[TaskShown]
    first: str
    schema: str


@operation("images_list_tasks_of_image", "GET", "images/<image_id>/tasks", refusals=(403, 503))
async def list_tasks_of_image(context: RequestContext, image_id: str) -> TasksOfImage:
    """Show the last import of an image."""
    stored = await context.services.stored_images.owned(
        context.caller, image_id, rights_of(context)
    )
    fetch = stored.record.fetch
    return {"tasks": [] if fetch is None else [_task(stored, fetch)]}


@operation(
    "images_list_tasks",
    "GET",
    "tasks",
    paged=True,
    query=("type", "status", "sort_key", "sort_dir"),
    refusals=(503,),
)
async def list_tasks(context: RequestContext) -> Tasks:
    """List the last import of each of the project's images."""
    request, found = context.request, await _all(context)
    for name in ("type", "status"):
        wanted = text(request, name.encode("ascii"))
        if wanted is not None:
            found = [each for each in found if each[name] == wanted]
    key = text(request, b"sort_key") or "created_at"
    if key not in _KEYS:
        raise InvalidRequest(f"Invalid sort key: {key}. It must be one of {', '.join(_KEYS)}.")
    descending = text(request, b"sort_dir") != "asc"
    ordered = sorted(
        found,
        key=lambda each: (each[key] or "", each["id"]),  # type: ignore[literal-required]
        reverse=descending,
    )
    page = after(request, ordered, lambda each: each["id"], _MOST)
    return {"tasks": list(page), "first": "/v2/tasks", "schema": "/v2/schemas/tasks"}


@operation("images_show_task", "GET", "tasks/<task_id>", refusals=(503,))
async def show_task(context: RequestContext, task_id: str) -> TaskShown:
    """Show an import."""
    for each in await _all(context):
        if each["id"] == task_id:
            return each
    raise NotFound(f"Task {task_id} could not be found.")


async def _all(context: RequestContext) -> Sequence[TaskShown]:
    """Return the last imports of the project's images."""
    caller = context.caller
    return [
        _task(each, each.record.fetch)
        for each in await context.services.stored_images.records(caller, rights_of(context))
        if each.record.owner == caller.tenant and each.record.fetch is not None
    ]


def _task(stored: StoredImage, fetch: ImageFetch) -> TaskShown:
    """Return the view of an import."""
    record = stored.record
    method = {"name": STAGED}
    if fetch.reference is not None:
        method = {"name": URL, "uri": without_query(fetch.reference)}
    failed = fetch.failure is not None
    running = "processing" if not fetch.ended else "success"
    return {
        "id": fetch.id,
        "type": _TYPE,
        "status": "failure" if failed else running,
        "owner": record.owner,
        "input": {
            "image_id": record.id,
            "import_req": {"method": method, "stores": [stored.store]},
        },
        "result": {"image_id": record.id} if fetch.ended and not failed else None,
        "message": fetch.failure or "",
        "image_id": record.id,
        "request_id": fetch.request_id,
        "user_id": fetch.user,
        "created_at": to_seconds(fetch.created_at),
        "updated_at": to_seconds(fetch.updated_at),
        "expires_at": None,
        "self": f"/v2/tasks/{fetch.id}",
        "schema": "/v2/schemas/task",
    }


OPERATIONS = (list_tasks_of_image, list_tasks, show_task)
