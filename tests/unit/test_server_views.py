"""Servers in the API: Nova's status for each action."""

from __future__ import annotations

from datetime import UTC, datetime

import attrs
import pytest

from bootvol.api.nova import server_views
from bootvol.api.nova.links import BaseUri
from bootvol.lifecycle import Status
from bootvol.model import Server

BASE = BaseUri("http://host", "v1.1", "t")
SERVER = Server(
    id=1,
    name="server-x",
    uuid="u",
    tenant="t",
    user="u",
    status=Status.AVAILABLE,
    created_at=datetime(2012, 10, 11, 13, 37, 44, tzinfo=UTC),
    display_name="web",
    flavor_id="100",
    memory_mib=64,
    cpus=1,
)


@pytest.mark.parametrize(
    ("status", "running", "shown", "state", "task"),
    [
        (Status.CREATING, False, "BUILD", "building", "spawning"),
        (Status.AVAILABLE, True, "ACTIVE", "active", None),
        (Status.AVAILABLE, False, "SHUTOFF", "stopped", None),
        # Until the task has ended, the server has the old status. A client that waits for the new
        # status may request the next change at once.
        (Status.STOPPING, True, "ACTIVE", "active", "powering-off"),
        (Status.STOPPING, False, "ACTIVE", "active", "powering-off"),
        (Status.STARTING, False, "SHUTOFF", "stopped", "powering-on"),
        (Status.STARTING, True, "SHUTOFF", "stopped", "powering-on"),
        (Status.REBOOTING, False, "REBOOT", "active", "rebooting"),
        (Status.RESETTING, True, "HARD_REBOOT", "active", "rebooting_hard"),
        (Status.ERROR, False, "ERROR", "error", None),
    ],
)
def test_a_status_changes_when_the_task_has_ended(
    status: Status, running: bool, shown: str, state: str, task: str | None
) -> None:
    server = attrs.evolve(SERVER, status=status)
    view = server_views.server(server, running, BASE, "nova")
    found = (view["status"], view["OS-EXT-STS:vm_state"], view["OS-EXT-STS:task_state"])
    assert found == (shown, state, task)


def test_tenants_see_other_ids_of_one_host() -> None:
    """Two tenants cannot tell whether their servers share a machine.

    Break: `src/bootvol/api/nova/server_views.py`: `f"{value.tenant}{value.daemon}"` ->
    `f"{value.daemon}"`.
    """
    one = attrs.evolve(SERVER, daemon="worker-1")
    hosts = [
        server_views.server(each, True, BASE, "nova")["hostId"]
        for each in (one, attrs.evolve(one, id=2), attrs.evolve(one, tenant="other"))
    ]
    assert hosts[0] == hosts[1] != hosts[2]
    assert not any("worker-1" in each for each in hosts)
