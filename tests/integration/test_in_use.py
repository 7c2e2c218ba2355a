"""A volume open in another program is neither deleted, attached, nor copied as a snapshot."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pytest_twisted import ensureDeferred

from bootvol.model import ConnectionInfo
from bootvol.testing.backends import noise
from bootvol.testing.shared import opened
from tests.daemons import Running

CONTENT = noise(1024 * 1024)


@contextmanager
def opened_by_qemu(daemon: Running) -> Iterator[Path]:
    """Let QEMU open the only volume until the end of the block."""
    (file,) = daemon.files()
    with opened(ConnectionInfo("file", str(file)), daemon.folder):
        yield file


async def code(daemon: Running, path: str) -> str:
    """Return the code of a failure."""
    found: str = (await daemon.call("GET", f"{path}/error")).json["error"]["code"]
    return found


@ensureDeferred
async def test_a_volume_that_is_open_on_the_host_is_left_alone(running: Running) -> None:
    (running.images / "disk").write_bytes(CONTENT)
    number = await running.create("disk")
    await running.until(number, "available")
    attachments = "servers/7/os-volume_attachments"
    wanted = {"volumeAttachment": {"volumeId": number}}
    with opened_by_qemu(running) as file:
        # No attachment.
        await running.call("POST", attachments, wanted)
        assert await running.until(number, "available", "in-use") == "available"
        assert await code(running, f"os-volumes/{number}") == "volume-in-use"
        # No snapshot: a copy would not show one moment.
        made = await running.call("POST", "os-snapshots", {"snapshot": {"volume_id": number}})
        snapshot = made.json["snapshot"]["id"]
        assert await running.until(snapshot, "available", "error", kind="snapshot") == "error"
        # No deletion.
        await running.call("DELETE", f"os-volumes/{number}")
        assert await running.until(number, "gone", "error") == "error"
        assert await code(running, f"os-volumes/{number}") == "volume-in-use"
        assert file.read_bytes()[: len(CONTENT)] == CONTENT
    await running.call("DELETE", f"os-volumes/{number}")
    assert await running.until(number, "gone", "error") == "gone"


@ensureDeferred
async def test_a_volume_that_nobody_has_open_any_more_is_free(running: Running) -> None:
    (running.images / "disk").write_bytes(CONTENT)
    number = await running.create("disk")
    await running.until(number, "available")
    with opened_by_qemu(running):
        pass
    made = await running.call("POST", "os-snapshots", {"snapshot": {"volume_id": number}})
    snapshot = made.json["snapshot"]["id"]
    assert await running.until(snapshot, "available", "error", kind="snapshot") == "available"
    wanted = {"volumeAttachment": {"volumeId": number}}
    await running.call("POST", "servers/7/os-volume_attachments", wanted)
    assert await running.until(number, "in-use") == "in-use"
