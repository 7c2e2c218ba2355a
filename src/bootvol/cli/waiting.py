"""Waits for the service's work after its answer: volumes made, deleted, detached."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any, Final, TypeVar, cast

import click

from bootvol.cli import show, signals
from bootvol.cli.client import Client, segment
from bootvol.cli.failures import NOT_FOUND, UNAUTHORIZED, CommandFailed
from bootvol.cli.shapes import ERROR, IMPORT, VOLUME, WARNINGS, fits, taken
from bootvol.cli.text import shown
from bootvol.jsons import JsonObject

if TYPE_CHECKING:
    from rich.progress import ProgressColumn

#: Seconds between two looks.
_INTERVAL: Final = 0.2
#: Seconds of outage to bear, and the most seconds between two attempts.
PATIENCE: Final = 300.0
_LONGEST: Final = 5.0

T = TypeVar("T")


def patiently(
    call: Callable[[], T],
    patience: float = PATIENCE,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Repeat a call until the service answers. The call must be safe to repeat.

    :param patience: seconds of outage after which to give up.
    :param clock: returns the seconds of a monotonic clock.
    :raises CommandFailed: if the service refuses, or does not answer before the patience ends.
    """
    begun, pause = clock(), _INTERVAL
    while True:
        try:
            return call()
        except CommandFailed as failure:
            left = begun + patience - clock()
            if not failure.passing or left <= 0:
                raise
            if pause == _INTERVAL:
                show.tell(f"{failure}; retrying for {left:.0f} seconds")
            sleep(min(left, max(pause, failure.retry_after)))
            pause = min(2 * pause, _LONGEST)


def created(
    client: Client, volume: JsonObject, *, bootable: bool = False, kind: str = "volume"
) -> JsonObject:
    """Follow a volume until it is made, and show the progress of its import.

    Print the id first.  If the wait ends early, print the volume as the service first answered, so
    that a script gets the id in any case.

    :param kind: ``volume``, or ``snapshot``.
    :returns: the finished volume or snapshot.
    :raises CommandFailed: if the volume is in error, with reason and remedy; or if the wait ends
        early.
    """
    number = volume["id"]
    path = f"{'hp-bootable-volumes' if bootable else f'os-{kind}s'}/{number}"
    cancel = f", or cancel with `bootvol {kind} delete {number}`"
    try:
        with _told(kind, number, "is being made", cancel):
            show.tell(f"{kind} {number}: {volume['status']}")
            if bootable:
                _follow(client, f"{path}/import")
            made = _settled(client, path, {"creating", "downloading"}, kind)
        if made["status"] == "error":
            raise _failed(client, made, kind)
    except CommandFailed:
        with suppress(OSError):
            click.echo(show.as_json(volume))
        raise
    return made


def deleted(client: Client, volume_id: str, *, kind: str = "volume") -> None:
    """Wait until a volume is gone.

    :param kind: ``volume``, or ``snapshot``.
    :raises CommandFailed: if the volume cannot be deleted, with the reason; or if the wait ends
        early.
    """
    path = f"os-{kind}s/{segment(volume_id)}"
    with _told(kind, volume_id, "is being deleted"):
        try:
            left = _settled(client, path, {"deleting"}, kind)
        except CommandFailed as failure:
            if failure.exit_code == NOT_FOUND:
                return
            raise
    raise _failed(client, left, kind)


def detached(client: Client, volume_id: str) -> None:
    """Wait until a volume in ``detaching`` is free.

    :raises CommandFailed: if the volume cannot be detached, with the reason; or if the wait ends
        early.
    """
    with _told("volume", volume_id, "is being detached"):
        left = _settled(client, f"os-volumes/{segment(volume_id)}", {"detaching"})
    if left["status"] != "available":
        raise _failed(client, left)


def _settled(client: Client, path: str, moving: set[str], kind: str = "volume") -> JsonObject:
    """Return a volume or snapshot when its status is not in ``moving``."""
    while True:
        volume: JsonObject = patiently(lambda: client.get(path, kind, VOLUME))
        if volume["status"] not in moving:
            return volume
        time.sleep(_INTERVAL)


def _failed(client: Client, volume: JsonObject, kind: str = "volume") -> CommandFailed:
    """Return the error for a volume or snapshot with an unexpected status."""
    number, image = volume["id"], volume.get("sourceImageRef")
    error = patiently(lambda: error_of(client, str(number), kind))
    if error is None:
        return CommandFailed(f"{kind} {number} is {volume['status']}")
    of = f" of the image {image}" if image else ""
    return CommandFailed(
        f"{kind} {number}{of}: {error['message']} {error['remedy']} ({error['code']})"
    )


@contextmanager
def _told(kind: str, number: object, going_on: str, remedy: str = "") -> Iterator[None]:
    """If the wait for a volume or snapshot ends early, say that the service's work goes on."""
    look = f"see it with `bootvol {kind} show {number}`{remedy}"
    try:
        with signals.handled(signals.interrupt):
            yield
    except signals.Interrupted as interrupted:
        raise CommandFailed(
            f"{kind} {number} {going_on} nevertheless: {look}", interrupted.exit_code
        ) from None
    except CommandFailed as failure:
        if failure.exit_code == NOT_FOUND:
            raise CommandFailed(f"{kind} {number} has been deleted", NOT_FOUND) from None
        again = ""
        if failure.status == UNAUTHORIZED:
            again = (
                "the token has expired: set BOOTVOL_TOKEN to a valid token,"
                " or let the command log in by OS_AUTH_URL, OS_USERNAME and so on; "
            )
        elif not failure.passing:
            raise
        raise CommandFailed(
            f"{failure}; {again}{kind} {number} {going_on} nevertheless: {look}", failure.exit_code
        ) from None


def bar_columns() -> Sequence[ProgressColumn]:
    """Return the columns of a progress bar for bytes."""
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    return (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )


def _follow(client: Client, path: str) -> None:
    from rich.console import Console
    from rich.progress import Progress

    warned: set[str] = set()
    why: object = None
    console = Console(file=cast("IO[str]", show.Messages()))
    with Progress(*bar_columns(), console=console) as bar:
        task = bar.add_task("queued", total=None)
        while True:
            now = patiently(lambda: client.get(path, "import", IMPORT))
            bar.update(
                task,
                description=shown(stage(now)),
                completed=now["bytesDone"],
                # Of a compressed image, only the end tells the whole size.
                total=now["bytesDone"] if now["phase"] == "done" else now["bytesTotal"],
            )
            for warning in warnings_of(now):
                if warning["code"] not in warned:
                    warned.add(warning["code"])
                    show.tell(f"warning: {warning['message']} ({warning['code']})")
            if now["phase"] in {"done", "failed"}:
                return
            error = now.get("error")
            if error != why and fits(error, ERROR):
                show.tell(f"{stage(now)}: {error['message']} ({error['code']})")
            why = error
            time.sleep(_INTERVAL)


def error_of(client: Client, number: str, kind: str = "volume") -> Any:
    """Return the error of a volume or snapshot; None without one.

    :raises CommandFailed: if the service refuses or does not answer.
    """
    return client.get(f"os-{kind}s/{segment(number)}/error", "error", _is_error_or_null)


def warnings_of(progress: JsonObject) -> list[JsonObject]:
    """Return the warnings of an import.

    :raises CommandFailed: if they have another shape.
    """
    # A service of another version may send no warnings.
    return taken(progress, "warnings", WARNINGS) if "warnings" in progress else []


def _is_error_or_null(value: object) -> bool:
    return value is None or fits(value, ERROR)


def stage(progress: JsonObject) -> str:
    """Return the phase of an import, or its place in line while the import waits."""
    # A service of another version may send no position.
    place = progress.get("position")
    return str(progress["phase"]) if place is None else f"waiting ({place} in line)"
