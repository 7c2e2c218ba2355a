"""Servers with volumes over NBD, and a daemon that is killed meanwhile."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from tempfile import TemporaryDirectory

from tests import guest
from tests.processes import Process, process
from tests.system.test_servers import HOSTING
from tests.waiting import LONG_LIMIT, block_until

EXPORTS = """
[exports]
by = "unix"
directory = "{short}"
"""


def boot(daemon: Process, volume: int) -> int:
    """Boot a server from a volume; return the id."""
    disk = {"device_name": "vda", "volume_id": volume, "delete_on_termination": False}
    server = {"name": "x", "flavorRef": "100", "block_device_mapping": [disk]}
    number: int = daemon.call("POST", "servers", {"server": server})["server"]["id"]
    return number


def says(daemon: Process, server: int, text: str) -> None:
    """Wait until a server has written a text to its console."""
    order: dict[str, object] = {"os-getConsoleOutput": {}}
    block_until(
        lambda: daemon.call("POST", f"servers/{server}/action", order)["output"],
        lambda said: text in said,
        LONG_LIMIT,
    )


def end(daemon: Process, server: int) -> None:
    """Terminate a server, and wait until it has ended."""
    daemon.call("DELETE", f"servers/{server}")
    block_until(lambda: not daemon.get("servers")["servers"])


def test_a_guest_does_not_notice_that_the_daemon_is_killed(
    tmp_path: Path, guest_image: Path
) -> None:
    # Paths of sockets must be short.
    with (
        TemporaryDirectory(prefix="bootvol", dir="/tmp") as short,
        process(tmp_path, HOSTING + EXPORTS.format(short=short)) as daemon,
    ):
        shutil.copy(guest_image, daemon.images / "linux")
        (daemon.images / "order").write_bytes(guest.WRITE.ljust(1024, b"\0"))
        root, order = daemon.create("linux"), daemon.create("order")
        daemon.until_settled()
        first = boot(daemon, root)
        says(daemon, first, guest.READY)
        daemon.stop(signal.SIGKILL)
        daemon.start()
        body = {"volumeAttachment": {"volumeId": order, "device": "/dev/vdb"}}
        attachments = f"servers/{first}/os-volume_attachments"
        daemon.call("POST", attachments, body)
        says(daemon, first, "wrote to vdb")
        daemon.call("DELETE", f"{attachments}/{order}")
        says(daemon, first, "vdb is gone")
        end(daemon, first)
        daemon.until_settled()
        second = boot(daemon, root)
        says(daemon, second, "boot 2; found files: boot-1")
        end(daemon, second)
