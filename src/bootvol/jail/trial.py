"""Tests whether this machine can confine programs: for the start and for ``check-config``."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Iterator
from typing import Final

import attrs

from bootvol import checks
from bootvol.checks import Mistake
from bootvol.jail import USERS, Bounds, Jail

_KEY: Final = "sandbox.required"
_REMEDY: Final = (
    "Use Linux 5.13 or newer with Landlock, install libseccomp2, and let the daemon's container, if"
    " there is one, use both."
)
#: Longest time in seconds of a program that does nothing.
_PATIENCE: Final = 30.0


def check(jail: Jail, *, needed: bool) -> Iterator[Mistake]:
    """Confine a program that does nothing.  Blocks.

    :param needed: whether the daemon is of no use where no program can be confined.
    """
    for n, folder in enumerate(jail.programs):
        yield from checks.readable_folder(f"sandbox.programs[{n}]", folder, fatal=False)
    yield from _users(jail.first_user)
    confining = attrs.evolve(jail, required=True)
    lacking = jail.lacks() or _failure(confining)
    if lacking is None:
        return
    if jail.programs and _failure(attrs.evolve(confining, programs=())) is None:
        named = [str(each) for each in jail.programs]
        remedy = "Let every user enter these folders and those above them, or name others."
        yield Mistake("sandbox.programs", named, f"no program runs: {lacking}", remedy, needed)
        return
    if not jail.required:
        fault = f"programs are not confined as they should be: {lacking}"
        yield Mistake(_KEY, False, fault, _REMEDY, fatal=False)
        return
    fault = f"{lacking}, so imports of qcow2, vmdk, vhd, vhdx and vdi images fail"
    if needed:
        fault += ", no volume is exported, and no server starts"
    yield Mistake(_KEY, True, fault, _REMEDY, fatal=needed)


def _users(first: int) -> Iterator[Mistake]:
    """Warn of a user of the system whose id is also an id of a confined program."""
    if os.geteuid() != 0:
        # All programs run as this user.
        return
    taken = next((each for each in pwd.getpwall() if first <= each.pw_uid < first + USERS), None)
    if taken is not None:
        fault = f"the user {taken.pw_name} has the id {taken.pw_uid}, as a program may have"
        remedy = f"Name the first of {USERS} ids that no user has."
        yield Mistake("sandbox.first_user", first, fault, remedy, fatal=False)


def _failure(jail: Jail) -> str | None:
    """Return the reason why a program cannot be confined, or None."""
    try:
        ran = subprocess.run(  # noqa: S603 - the words are the daemon's own
            jail.command(["true"], Bounds()), capture_output=True, timeout=_PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"no program can be started ({error})"
    if not ran.returncode:
        return None
    said = ran.stderr.decode("utf-8", "replace").strip().splitlines()
    return said[-1] if said else f"a confined program ends with {ran.returncode}"
