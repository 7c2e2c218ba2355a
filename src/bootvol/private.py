"""Checks that other users can neither read nor replace the files and folders that hold secrets.

*Other users* are all users but root and the user of this process.  A group counts as this user's
own only if the process is in the group and the system knows no other member.

Files with secrets follow PostgreSQL's rule for the key of a server (PostgreSQL manual, "Secure
TCP/IP Connections with SSL").  Either this user owns the file, with mode 0600 or stricter.  Or root
owns the file, with mode 0640 or stricter.

Each folder on the way to a path is checked, too, as sshd does with StrictModes: a user who may
write to such a folder may replace the right file.  In a folder with the sticky bit, such as /tmp,
only the owner of an entry may replace the entry.

Access control lists (acl(5)) name further users and groups.  Rights that a list gives to such users
count like the rights of all others.

Functions here block on the disk.  All but :func:`make` change nothing.
"""

from __future__ import annotations

import enum
import grp
import os
import pwd
import shlex
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, get_args

from pydantic import BaseModel

from bootvol.checks import Mistake
from bootvol.errors import ConfigurationError

#: The most symbolic links in a path (path_resolution(7)).
_MOST_LINKS: Final = 40
#: The attribute with the access control list of a file.  Each entry has a tag, rights, and an id
#: (linux/posix_acl_xattr.h).  The mask limits the rights of all named users and groups.
_ACL: Final = "system.posix_acl_access"
_ACL_HEAD: Final = 4
_ACL_ENTRY: Final = struct.Struct("<HHI")
_ACL_USER, _ACL_GROUP, _ACL_MASK = 0x02, 0x08, 0x10


class Kept(enum.Enum):
    """The rights of other users to a path in the settings.  A member marks the setting's type."""

    #: A file that others may not read or write.
    SECRET = enum.auto()
    #: A file or folder that the daemon relies on: others may read, but never write.
    TRUSTED = enum.auto()
    #: A folder that the daemon writes to: others may enter, but never write there.
    FOLDER = enum.auto()
    #: A folder that others may not even enter.
    CLOSED = enum.auto()
    #: A folder of PEM files: ``*-key.pem`` are secrets, the other files are trusted.
    CREDENTIALS = enum.auto()
    #: A path that others may not replace.  The operator decides who may use the path.
    PLACE = enum.auto()
    #: A path without checks: the operator decides about all rights of others.
    SHARED = enum.auto()


def check(key: str, path: Path, kept: Kept) -> Iterator[Mistake]:
    """Check a path, and all folders that lead to the path.  A missing path is no fault here.

    :param key: see :attr:`bootvol.checks.Mistake.key`.
    """
    if kept is Kept.SHARED:
        return
    found = _way(key, path)
    if found is None and kept is not Kept.PLACE:
        found = _itself(key, path, kept)
    if found is not None:
        yield found
    elif kept is Kept.CREDENTIALS and os.path.isdir(path):
        for each in sorted(path.glob("*.pem")):
            inside = Kept.SECRET if each.name.endswith("-key.pem") else Kept.TRUSTED
            yield from check(key, each, inside)


def check_options(options: BaseModel) -> Iterator[Mistake]:
    """Check every path in settings whose type has a mark of :class:`Kept`."""
    for name, field in type(options).model_fields.items():
        kept = kept_as(field.metadata) or kept_as(field.annotation)
        yield from _check_value(name, getattr(options, name), kept)


def paths(options: BaseModel, kept: Kept) -> Iterator[Path]:
    """Yield the paths in settings with the mark ``kept``.  Tables inside are skipped."""
    for name, field in type(options).model_fields.items():
        value = getattr(options, name)
        if isinstance(value, Path) and kept in map(kept_as, (field.metadata, field.annotation)):
            yield value


def kept_as(annotation: object) -> Kept | None:
    """Return the mark in a setting's type; None if the type has no mark."""
    if isinstance(annotation, Kept):
        return annotation
    parts = annotation if isinstance(annotation, list) else get_args(annotation)
    return next((kept for kept in map(kept_as, parts) if kept is not None), None)


def make(key: str, path: Path, kept: Kept = Kept.FOLDER) -> None:
    """Make a missing folder for the daemon alone, and check the folder.

    :param key: see :attr:`bootvol.checks.Mistake.key`.
    :raises OSError: if the folder cannot be made.
    :raises ConfigurationError: if other users have more rights than ``kept`` allows.
    """
    missing = [path]
    while not missing[-1].parent.exists():
        missing.append(missing[-1].parent)
    for each in reversed(missing):
        each.mkdir(mode=0o700, exist_ok=True)
    for mistake in check(key, path, kept):
        raise ConfigurationError(str(mistake))


def _check_value(key: str, value: object, kept: Kept | None) -> Iterator[Mistake]:
    if isinstance(value, BaseModel):
        for mistake in check_options(value):
            yield _below(key, mistake)
    elif isinstance(value, list | tuple):
        for n, each in enumerate(value):
            yield from _check_value(f"{key}[{n}]", each, kept)
    elif isinstance(value, Path) and kept is not None:
        yield from check(key, value, kept)


def _below(place: str, mistake: Mistake) -> Mistake:
    return Mistake(
        f"{place}.{mistake.key}", mistake.value, mistake.fault, mistake.remedy, mistake.fatal
    )


def _way(key: str, path: Path) -> Mistake | None:
    """Return the first fault in a path's folders and links that lets others replace the path."""
    for folder, entry in _steps(path):
        above = folder.lstat()
        if not _is_trusted(above.st_uid):
            return _of_another(key, path, folder, above)
        if _others_write(folder, above):
            found = _status(entry)
            if not above.st_mode & stat.S_ISVTX:
                fault = f"other users may write to the folder {folder}, and so replace the path"
                return Mistake(key, path, fault, f"Run: {_command('chmod go-w', folder)}")
            if found is not None and not _is_trusted(found.st_uid):
                return _of_another(key, path, entry, found)
    return None


def _steps(path: Path) -> Iterator[tuple[Path, Path]]:
    """Yield each folder on the way to a path, with the entry that is looked up in the folder."""
    here = Path("/")
    left = list(reversed(path.absolute().parts[1:]))
    links = 0
    while left and links <= _MOST_LINKS:
        part = left.pop()
        if part == "..":
            here = here.parent
            continue
        entry = here / part
        yield here, entry
        found = _status(entry)
        if found is None:
            return
        if stat.S_ISDIR(found.st_mode):
            here = entry
            continue
        if not stat.S_ISLNK(found.st_mode):
            return
        links += 1
        target = Path(os.readlink(entry))
        if target.is_absolute():
            here = Path("/")
        left += [each for each in reversed(target.parts) if each != "/"]


def _itself(key: str, path: Path, kept: Kept) -> Mistake | None:
    try:
        found = path.stat()
    except OSError:
        return None
    if not _is_trusted(found.st_uid):
        return _of_another(key, path, path, found)
    mode = _mode(path, found)
    if kept is Kept.SECRET and stat.S_ISREG(found.st_mode):
        return _of_secret(key, path, found)
    what = "folder" if stat.S_ISDIR(found.st_mode) else "file"
    if stat.S_ISDIR(found.st_mode) and mode & stat.S_ISVTX and _others_write(path, found):
        # Without these rights, /tmp would be of no use to all other programs.
        fault = "the folder is for the files of all users"
        return Mistake(key, path, fault, "Name a folder of the daemon's own.")
    if kept is Kept.CLOSED and (found.st_uid != os.geteuid() or mode & 0o077):
        fault = f"the {what} is open to other users"
        owned = f"{_command('chown', _name(os.geteuid()), path)} && "
        run = ("" if found.st_uid == os.geteuid() else owned) + _command("chmod 700", path)
        return Mistake(key, path, fault, f"Run: {run}")
    if _others_write(path, found):
        fault = f"other users may write to the {what}"
        return Mistake(key, path, fault, f"Run: {_command('chmod go-w', path)}")
    return None


def _of_secret(key: str, path: Path, found: os.stat_result) -> Mistake | None:
    mode = _mode(path, found)
    of_root = found.st_uid == 0
    if not mode & (0o037 if of_root else 0o077):
        return None
    doing = "write to" if mode & 0o022 else "read"
    fault = f"other users may {doing} the file, which holds a secret"
    if of_root and os.geteuid() != 0:
        group = _command("chgrp", str(os.getegid()), path)
        return Mistake(key, path, fault, f"Run: {group} && {_command('chmod 640', path)}")
    return Mistake(key, path, fault, f"Run: {_command('chmod 600', path)}")


def _of_another(key: str, path: Path, found: Path, status: os.stat_result) -> Mistake:
    fault = f"{found} belongs to the user {_name(status.st_uid)}, who may change and replace it"
    return Mistake(key, path, fault, f"Run: {_command('chown -h', _name(os.geteuid()), found)}")


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except OSError:
        return None


def _is_trusted(uid: int) -> bool:
    return uid in (0, os.geteuid())


def _others_write(path: Path, status: os.stat_result) -> bool:
    mode = _mode(path, status)
    return bool(mode & 0o002 or (mode & 0o020 and not _is_own_group(status.st_gid)))


def _mode(path: Path, status: os.stat_result) -> int:
    """Return the mode of a path; the rights of all others include those of an access control list.

    ``chmod`` takes these rights away as well: the rights of the group are the mask of the list.
    """
    mode = stat.S_IMODE(status.st_mode)
    try:
        entries = list(_ACL_ENTRY.iter_unpack(os.getxattr(path, _ACL)[_ACL_HEAD:]))
    except OSError:
        # The file has no list, or the file system knows none.
        return mode
    most = next((rights for tag, rights, _ in entries if tag == _ACL_MASK), 0o7)
    for tag, rights, number in entries:
        if (tag == _ACL_USER and not _is_trusted(number)) or (
            tag == _ACL_GROUP and not _is_own_group(number)
        ):
            mode |= rights & most
    return mode


def _is_own_group(gid: int) -> bool:
    """Return whether this process is in a group, and the group has no other member."""
    if gid not in (os.getegid(), *os.getgroups()):
        return False
    try:
        members = grp.getgrgid(gid).gr_mem
    except KeyError:
        # Container platforms use group numbers without a name in the system.
        members = []
    ours = {_name(0), _name(os.geteuid())}
    return ours.issuperset(members) and all(
        _is_trusted(user.pw_uid) for user in pwd.getpwall() if user.pw_gid == gid
    )


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _command(command: str, *words: str | Path) -> str:
    return " ".join([command, *(shlex.quote(str(word)) for word in words)])
