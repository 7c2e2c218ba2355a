"""Checks of the machine, for plugins and the core: folders, files and programs that settings name.

A check changes nothing on the machine.  Every function here blocks: call it before the reactor
runs, or in a thread.
"""

from __future__ import annotations

import os
import shutil
import ssl
from collections.abc import Iterator
from pathlib import Path

import attrs


@attrs.frozen
class Mistake:
    """One fault that a check found.

    :ivar key: the setting, as seen from the table that was checked: ``directory``.
    :ivar value: the value of the setting; never a secret.
    :ivar fault: one clause for the operator: ``the folder cannot be written``.
    :ivar remedy: one sentence that says how to mend the fault.
    :ivar fatal: False if the daemon runs, with less than the configuration asks for.
    """

    key: str
    value: object
    fault: str
    remedy: str
    fatal: bool = True

    def __str__(self) -> str:
        shown = str(self.value) if isinstance(self.value, Path) else self.value
        return f"{self.key}: {shown!r}: {self.fault}. {self.remedy}"


def folder(key: str, path: Path) -> Iterator[Mistake]:
    """Check a folder that the daemon writes to, and makes if the folder is missing.

    :param key: see :attr:`Mistake.key`.
    """
    found = path
    while not os.path.lexists(found) and found != found.parent:
        found = found.parent
    if not found.is_dir():
        yield Mistake(key, path, f"{found} is not a folder", "Name another folder.")
    elif not os.access(found, os.W_OK | os.X_OK, effective_ids=True):
        doing = "be written" if found == path else f"be made: {found} cannot be written"
        yield Mistake(
            key,
            path,
            f"the folder cannot {doing}",
            "Give the daemon's user the right to write there, or name another folder.",
        )


def readable_folder(key: str, path: Path, *, fatal: bool = True) -> Iterator[Mistake]:
    """Check a folder that the operator provides and the daemon reads.

    :param key: see :attr:`Mistake.key`.
    :param fatal: see :attr:`Mistake.fatal`.
    """
    if not path.is_dir():
        fault = "there is no such folder" if not os.path.lexists(path) else "this is not a folder"
        yield Mistake(key, path, fault, "Make the folder, or name another one.", fatal)
    elif not os.access(path, os.R_OK | os.X_OK, effective_ids=True):
        remedy = "Give the daemon's user the right to read the folder."
        yield Mistake(key, path, "the folder cannot be read", remedy, fatal)


def file(key: str, path: Path) -> Iterator[Mistake]:
    """Check a file that the daemon reads.

    :param key: see :attr:`Mistake.key`.
    """
    try:
        with path.open("rb") as opened:
            opened.read(1)
    except OSError as error:
        remedy = "Name a file that the daemon's user may read."
        yield Mistake(key, path, f"the file cannot be read: {error.strerror}", remedy)


def authorities(key: str, path: Path) -> Iterator[Mistake]:
    """Check a PEM file of certificate authorities.

    :param key: see :attr:`Mistake.key`.
    """
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except OSError as error:
        fault = f"no certificate can be read from the file: {error.strerror or error}"
        yield Mistake(key, path, fault, "Name a PEM file with certificates.")


def program(key: str, name: str, package: str, *, fatal: bool = True) -> Iterator[Mistake]:
    """Check a program that the daemon runs.

    :param key: see :attr:`Mistake.key`.
    :param name: a name that is looked for in PATH, or a path.
    :param package: the Debian package that has the program.
    :param fatal: see :attr:`Mistake.fatal`.
    """
    if shutil.which(name) is None:
        remedy = f"Install the program: apt-get install {package}"
        yield Mistake(key, name, "there is no such program", remedy, fatal)
