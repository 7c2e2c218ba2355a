"""Checks at the start of the daemon: the volume group and the pool exist and are suitable."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from typing import Final

from twisted.logger import Logger

from bootvol.errors import ConfigurationError
from bootvol_plugins.lvm import commands
from bootvol_plugins.lvm.options import LvmOptions

#: Time limit of a command, in seconds.
_LIMIT: Final = 60

_log = Logger()


def check_group(name: str, options: LvmOptions) -> str:
    """Check LVM and the volume group; return the path of LVM's program. Blocks.

    :param name: the backend's name.
    :raises ConfigurationError: if LVM or the volume group is missing.
    """
    binary = commands.find()
    if binary is None:
        raise ConfigurationError(
            f"backend {name!r}: the program lvm is not installed. Install the program: apt-get"
            " install lvm2"
        )
    group = options.group
    # If the group does not exist, vgs fails.
    _report(name, binary, commands.report_of("vgs", ["vg_name"], group))
    return binary


def store(name: str, binary: str, group: str, pool: str | None) -> str:
    """Return the identity of a volume group, or of a thin pool in the group. Blocks.

    :param name: the backend's name.
    :raises ConfigurationError: if LVM cannot report the identity.
    """
    found = _report(name, binary, commands.report_of("vgs", ["vg_uuid"], group))
    identity = found[0]["vg_uuid"]
    if pool is not None:
        words = commands.report_of("lvs", ["lv_uuid"], "-S", f'lv_name="{pool}"', group)
        identity += "/" + _report(name, binary, words)[0]["lv_uuid"]
    return identity


def check_pool(name: str, binary: str, group: str, pool: str) -> int:
    """Check a thin pool; return its chunk size in bytes. Blocks.

    :param name: the backend's name.
    :raises ConfigurationError: if the pool is missing or unsuitable.
    """
    fields = ["segtype", "zero", "discards", "chunk_size", "lv_when_full"]
    words = commands.report_of("lvs", fields, "-S", f'lv_name="{pool}"', group)
    found = _report(name, binary, words)
    if not found or found[0]["segtype"] != "thin-pool":
        raise ConfigurationError(
            f"backend {name!r}: {group} has no thin pool {pool!r}. Create the pool:"
            f" lvcreate --type thin-pool -l 90%FREE -n {pool} {group}"
        )
    if found[0]["zero"] != "zero":
        # After a write to a part of a chunk, the rest of the chunk would show old data.
        raise ConfigurationError(
            f"backend {name!r}: pool {group}/{pool} does not zero new chunks, so volumes would show"
            f" former data of other volumes. Enable zeroing: lvchange --zero y {group}/{pool}"
        )
    if found[0]["discards"] == "ignore":
        raise ConfigurationError(
            f"backend {name!r}: pool {group}/{pool} does not accept discards, so clones cannot be"
            f" shortened. Enable discards: lvchange --discards passdown {group}/{pool}"
        )
    if found[0]["lv_when_full"] == "queue":
        _log.warn(
            "backend {name}: when the pool is full, writes hang for a minute."
            " Better: lvchange --errorwhenfull y {group}/{pool}",
            name=name,
            group=group,
            pool=pool,
        )
    return int(found[0]["chunk_size"])


def reducing(name: str, binary: str) -> tuple[str, ...]:
    """Return LVM's command to shrink a volume, whatever data a guest wrote to the volume. Blocks.

    From 2.03.17 on LVM checks for file systems first, unless ``--fs ignore`` is given.

    :param name: the backend's name.
    :raises ConfigurationError: if LVM cannot be used.
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
            f"backend {name!r}: {commands.complaint(ended.stderr)}. Run `vgs` as the"
            " daemon's user, which must be root"
        )
    return ended.stdout
