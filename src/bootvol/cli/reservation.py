"""Attaches a volume while a machine of the command line uses the volume."""

from __future__ import annotations

import time
import uuid
from types import TracebackType
from typing import Final, Self, cast

from bootvol.cli import show
from bootvol.cli.client import Client, segment
from bootvol.cli.failures import NOT_ALLOWED, NOT_FOUND, CommandFailed
from bootvol.cli.shapes import ATTACHED, CONNECTION
from bootvol.cli.signals import Stop, exit_code
from bootvol.cli.waiting import PATIENCE, error_of, patiently
from bootvol.jsons import JsonObject

#: Prefix of the server ids that this module attaches volumes to.
_PREFIX: Final = "boot-"
_DEVICE: Final = "/dev/vda"
#: Seconds between two looks, and the outage of the service to bear during an attachment.
_INTERVAL: Final = 0.5
_AWAY: Final = 60.0


class Reservation:
    """A context manager that keeps a volume attached to a machine on this host.

    While the volume is attached, nobody else can boot, attach or delete the volume.

    :param stop: the signals that ask the command to end.
    :ivar address: the volume's address for QEMU.
    """

    def __init__(self, client: Client, volume_id: str, stop: Stop) -> None:
        self.address, self.read_only = "", False
        self._client = client
        self._stop = stop
        self._volume = f"os-volumes/{segment(volume_id)}"
        self._attachments = f"servers/{_PREFIX}{uuid.uuid4()}/os-volume_attachments"
        self._id: object = volume_id

    def __enter__(self) -> Self:
        """Attach the volume.

        :raises CommandFailed: if the volume is in use, or the caller or this host may not reach
            the volume.
        """
        volume = self._shown()
        self._id = volume["id"]
        if volume["status"] != "available":
            raise in_use(volume)
        # Ask before any change: the service refuses callers who may not know the address.
        self._connection()
        try:
            self._attach()
            found = self._connection()
            self.address, self.read_only = str(found["address"]), bool(found.get("readOnly"))
            if self.address.startswith("nbds:"):
                raise CommandFailed(
                    "the service exports its volumes by TLS, to hypervisors with certificates:"
                    " boot the volume on one of these"
                )
        except BaseException:
            self._free()
            raise
        show.tell(
            f"volume {self._id} is attached until the machine ends; if this command is killed, free"
            f" the volume with `bootvol volume detach {self._id}`"
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Detach the volume. On failure, say how to detach the volume later."""
        self._free()

    def _attach(self) -> None:
        wanted = {"volumeAttachment": {"volumeId": self._id, "device": _DEVICE}}
        try:
            with self._stop.breaking_off():
                self._client.post(self._attachments, wanted, "volumeAttachment")
        except CommandFailed as failure:
            if self._stop.numbers:
                raise
            volume = self._shown()
            if failure.exit_code == NOT_FOUND:
                raise CommandFailed(
                    "the service attaches volumes only to its own servers: boot the"
                    " volume as a server of the service (`POST os-volumes_boot`)"
                ) from None
            raise in_use(volume) if volume["status"] != "available" else failure from None
        while (volume := patiently(self._shown, _AWAY))["status"] == "attaching":
            if self._stop.numbers:
                raise CommandFailed("interrupted", exit_code(self._stop.numbers[0]))
            time.sleep(_INTERVAL)
        if volume["status"] != "in-use":
            error = error_of(self._client, str(self._id)) or {"message": ""}
            raise CommandFailed(f"volume {self._id} could not be attached: {error['message']}")

    def _free(self) -> None:
        """Detach the volume; retry until the patience ends or two signals came."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                with self._stop.breaking_off():
                    self._client.delete(f"{self._attachments}/{self._id}")
                failure = None
            except CommandFailed as error:
                if error.exit_code == NOT_FOUND:
                    return
                # The service also refuses while the volume is being attached or detached.
                failure = error
            if failure is None and len(self._stop.numbers) > 1:
                show.tell(f"volume {self._id} is being detached")
                return
            refused = failure is not None and failure.exit_code == NOT_ALLOWED
            if refused or time.monotonic() > until or len(self._stop.numbers) > 1:
                why = f": {failure}" if failure is not None else ""
                when = "with a token that is valid" if refused else "when the service is well"
                show.tell(
                    f"volume {self._id} is still attached{why}; {when}, free the volume"
                    f" with `bootvol volume detach {self._id}`"
                )
                return
            time.sleep(_INTERVAL)

    def _shown(self) -> JsonObject:
        with self._stop.breaking_off():
            return cast("JsonObject", self._client.get(self._volume, "volume", ATTACHED))

    def _connection(self) -> JsonObject:
        with self._stop.breaking_off():
            path = f"{self._volume}/connection"
            return cast("JsonObject", self._client.get(path, "connection", CONNECTION))


def in_use(volume: JsonObject) -> CommandFailed:
    """Return the error for a volume that cannot be booted from."""
    number, status = volume["id"], volume["status"]
    if not volume["attachments"]:
        return CommandFailed(f"volume {number} is {status}: only an available one can be booted")
    server = str(volume["attachments"][0]["serverId"])
    advice = ""
    if server.startswith(_PREFIX):
        advice = (
            f"; if the command that boots it has been killed, free it with `bootvol volume detach"
            f" {number}`"
        )
    return CommandFailed(f"volume {number} is {status}: server {server} has it{advice}")


def detach(client: Client, volume_id: str) -> None:
    """Ask the service to detach a volume from its server.

    :raises CommandFailed: if the volume is not attached, or the service refuses or does not answer.
    """
    volume = client.get(f"os-volumes/{segment(volume_id)}", "volume", ATTACHED)
    if not volume["attachments"]:
        raise CommandFailed(f"volume {volume['id']} is not attached")
    server = segment(str(volume["attachments"][0]["serverId"]))
    client.delete(f"servers/{server}/os-volume_attachments/{volume['id']}")
