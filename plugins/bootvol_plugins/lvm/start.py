"""What is looked at when the daemon starts: that there is what the operator has named."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from typing import Final

from twisted.logger import Logger

from bootvol.errors import ConfigurationError
from bootvol_plugins.lvm import commands
from bootvol_plugins.lvm.options import LvmOptions

#: Seconds that a command may take.
_LIMIT: Final = 60

_log = Logger()


def check_group(name: str, options: LvmOptions) -> str:
    """See that LVM and the volume group are there; return the path of LVM's program.  Blocks.

    :param name: of the backend.
    :raises ConfigurationError: they are not.
    """
    binary = commands.find()
    if binary is None:
        raise ConfigurationError(
            f"backend {name!r}: there is no program lvm. Install it: apt-get install lvm2"
        )
    group = options.group
    # A group that is not there is an error of vgs.
    _report(name, binary, commands.report_of("vgs", ["vg_name"], group))
    return binary


def store(name: str, binary: str, group: str, pool: str | None) -> str:
    """Return what tells a volume group, or a thin pool in it, from every other one.  Blocks.

    :param name: of the backend.
    :raises ConfigurationError: it cannot be told.
    """
    found = _report(name, binary, commands.report_of("vgs", ["vg_uuid"], group))
    identity = found[0]["vg_uuid"]
    if pool is not None:
        words = commands.report_of("lvs", ["lv_uuid"], "-S", f'lv_name="{pool}"', group)
        identity += "/" + _report(name, binary, words)[0]["lv_uuid"]
    return identity


def check_pool(name: str, binary: str, group: str, pool: str) -> int:
    """See that a thin pool is there, and fit; return its chunk size in bytes.  Blocks.

    :param name: of the backend.
    :raises ConfigurationError: it is not.
    """
    fields = ["segtype", "zero", "discards", "chunk_size", "lv_when_full"]
    words = commands.report_of("lvs", fields, "-S", f'lv_name="{pool}"', group)
    found = _report(name, binary, words)
    if not found or found[0]["segtype"] != "thin-pool":
        raise ConfigurationError(
            f"backend {name!r}: {group} has no thin pool {pool!r}. Make it:"
            f" lvcreate --type thin-pool -l 90%FREE -n {pool} {group}"
        )
    if found[0]["zero"] != "zero":
        # What is written to a part of a chunk would show what the rest of it held before.
        raise ConfigurationError(
            f"backend {name!r}: pool {group}/{pool} does not zero new chunks, so volumes would show"
            f" what others held. Let it: lvchange --zero y {group}/{pool}"
        )
    if found[0]["discards"] == "ignore":
        raise ConfigurationError(
            f"backend {name!r}: pool {group}/{pool} takes no space back, so clones cannot be cut"
            f" short. Let it: lvchange --discards passdown {group}/{pool}"
        )
    if found[0]["lv_when_full"] == "queue":
        _log.warn(
            "backend {name}: when the pool is full, whoever writes hangs for a minute."
            " Better: lvchange --errorwhenfull y {group}/{pool}",
            name=name,
            group=group,
            pool=pool,
        )
    return int(found[0]["chunk_size"])


def reducing(name: str, binary: str) -> tuple[str, ...]:
    """Return the words that make a volume smaller, whatever a guest has put on it.  Blocks.

    From 2.03.17 on LVM looks for file systems first, unless it is told not to.

    :param name: of the backend.
    :raises ConfigurationError: LVM cannot be used.
    """
    options = _said(name, binary, ["lvreduce", "--help"])
    return ("lvreduce", "-y", "-f", *(("--fs", "ignore") if "--fs " in options else ()))


def _report(name: str, binary: str, words: Sequence[str]) -> list[Mapping[str, str]]:
    return commands.rows(_said(name, binary, words))


def _said(name: str, binary: str, words: Sequence[str]) -> str:
    try:
        ended = subprocess.run(  # noqa: S603 - the program was found, the names are valid
            [binary, *words],
            env=commands.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_LIMIT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigurationError(f"backend {name!r}: LVM cannot be used: {error}") from error
    if ended.returncode:
        raise ConfigurationError(
            f"backend {name!r}: {commands.complaint(ended.stderr)}. See what `vgs` says, as the"
            " user that the daemon runs as, which must be root"
        )
    return ended.stdout
