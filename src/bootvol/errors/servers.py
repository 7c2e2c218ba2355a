"""Errors of work on servers."""

from __future__ import annotations

from bootvol.errors.base import BootvolError


class HypervisorFailed(BootvolError):
    """The hypervisor refused or failed."""

    code = "hypervisor-failed"
    remedy = "Ask the operator to check the hypervisor, then try again."
    default_message = "The hypervisor failed."


class HostRunsNoServers(HypervisorFailed):
    """No daemon on the only host that reaches a server's volumes has a hypervisor.

    :param host: the host's name.
    """

    code = "host-runs-no-servers"
    remedy = (
        "Have the operator configure a hypervisor for a daemon of that host: then the work goes on."
        " Or delete the server, and make one with volumes of another host."
    )

    def __init__(self, host: str) -> None:
        super().__init__(f"The server's volumes are on host {host}, whose daemons run no servers.")


class DaemonAway(BootvolError):
    """The only daemon that can do the work does not run.

    That daemon runs the server, or serves the volume.

    :param host: the last known host of the daemon; None for an unknown host.
    """

    code = "daemon-away"
    remedy = (
        "Have the operator start that daemon again, with its former state directory: then the work"
        " goes on."
    )

    def __init__(self, host: str | None) -> None:
        which = "Another daemon" if host is None else f"The daemon of host {host}"
        super().__init__(f"{which} runs the server or serves the volume, and is down.")


class HypervisorSilent(HypervisorFailed):
    """The hypervisor does not answer in time."""

    code = "hypervisor-silent"
    remedy = "Try again later. If the error persists, ask the operator to check the hypervisor."
    default_message = "The hypervisor does not answer."


class ExportFailed(BootvolError):
    """The daemon cannot export a volume to the host of its server."""

    code = "export-failed"
    remedy = "Ask the operator to check the daemon's log and qemu-nbd, then try again."
    default_message = "The volume cannot be exported."
