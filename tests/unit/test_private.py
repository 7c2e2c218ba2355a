"""Files open to other users are refused: each mode, each owner, each setting."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import re
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, get_args

import attrs
import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as bounds
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr, ValidationError

from bootvol import plugins, private, tables
from bootvol.errors import ConfigurationError
from bootvol.options import BASE, SECRETS, Options, Secrets
from bootvol.private import Kept

HASH: Final = "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$ZGlnZXN0ZGlnZXN0ZGlnZXN0"
#: A user and groups unknown to the machine.
ME, STRANGER, OUR_GROUP, OTHER_GROUP = 54321, 54322, 54323, 54324


@pytest.fixture
def as_me(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process be an ordinary user in one group."""
    monkeypatch.setattr(os, "geteuid", lambda: ME)
    monkeypatch.setattr(os, "getegid", lambda: OUR_GROUP)
    monkeypatch.setattr(os, "getgroups", lambda: [OUR_GROUP])


def faults(path: Path, kept: Kept) -> list[str]:
    """Return the faults of a path; each line has a remedy."""
    found = [str(each) for each in private.check("key", path, kept)]
    remedies = r"Run: (chmod|chown|chgrp) |Name a folder of the daemon's own\."
    assert all(re.search(remedies, each) for each in found), found
    return found


@pytest.mark.usefixtures("as_me")
@bounds(max_examples=100, suppress_health_check=list(HealthCheck))
@given(
    mode=st.integers(0, 0o777),
    owner=st.sampled_from([0, ME, STRANGER]),
    group=st.sampled_from([OUR_GROUP, OTHER_GROUP]),
)
@example(0o640, 0, OTHER_GROUP)
@example(0o640, ME, OUR_GROUP)
@example(0o600, STRANGER, OUR_GROUP)
def test_secrets_are_kept_as_postgresql_keeps_its_key(
    tmp_path: Path, mode: int, owner: int, group: int
) -> None:
    """The rule in words: the manual of PostgreSQL, "Secure TCP/IP Connections with SSL".

    Break: `src/bootvol/private.py`: `0o037 if of_root else 0o077` -> `0o037`
    """
    file = tmp_path / "secret"
    file.touch()
    os.chown(file, owner, group)
    file.chmod(mode)
    most = {0: 0o740, ME: 0o700}.get(owner)
    right = most is not None and mode & ~most == 0
    assert bool(faults(file, Kept.SECRET)) == (not right)


@pytest.mark.usefixtures("as_me")
@bounds(max_examples=100, suppress_health_check=list(HealthCheck))
@given(
    mode=st.integers(0, 0o7777),
    owner=st.sampled_from([0, ME, STRANGER]),
    group=st.sampled_from([OUR_GROUP, OTHER_GROUP]),
    place=st.sampled_from(["itself", "above"]),
)
def test_nobody_else_writes_to_a_folder(
    tmp_path: Path, mode: int, owner: int, group: int, place: str
) -> None:
    """Break: `src/bootvol/private.py`: `if not _is_trusted(above.st_uid):` -> `if False:`"""
    folder = tmp_path / "folder"
    folder.mkdir(exist_ok=True)
    path = folder if place == "itself" else folder / "within"
    path.mkdir(exist_ok=True)
    os.chown(folder, owner, group)
    folder.chmod(mode)
    writers = mode & 0o002 or (mode & 0o020 and group == OTHER_GROUP)
    # In a folder with the sticky bit, others cannot replace our files.
    right = owner != STRANGER and not (writers and not (mode & 0o1000 and place == "above"))
    assert bool(faults(path, Kept.FOLDER)) == (not right)
    closed = right and not mode & 0o077 and owner == ME
    if place == "itself":
        assert bool(faults(path, Kept.CLOSED)) == (not closed)


def grant(path: Path, tag: int, number: int, rights: int, mask: int) -> None:
    """Give a path an access control list of one named user (2) or group (8)."""
    nobody = 0xFFFFFFFF
    entries = [(1, 7, nobody), (4, 0, nobody), (16, mask, nobody), (32, 0, nobody)]
    entries.append((tag, rights, number))
    packed = b"".join(struct.pack("<HHI", *each) for each in sorted(entries))
    os.setxattr(path, "system.posix_acl_access", struct.pack("<I", 2) + packed)


@pytest.mark.usefixtures("as_me")
@bounds(max_examples=100, suppress_health_check=list(HealthCheck))
@given(
    named=st.sampled_from([(2, ME), (2, 0), (2, STRANGER), (8, OUR_GROUP), (8, OTHER_GROUP)]),
    rights=st.integers(0, 7),
    mask=st.integers(0, 7),
    owner=st.sampled_from([0, ME]),
)
@example((2, STRANGER), 4, 4, 0)
@example((8, OTHER_GROUP), 2, 2, ME)
def test_access_control_lists_count(
    tmp_path: Path, named: tuple[int, int], rights: int, mask: int, owner: int
) -> None:
    """A list names users and groups that the mode does not show.

    Break: `src/bootvol/private.py`: `tag == _ACL_USER and not _is_trusted(number)` -> `False`
    Break: `src/bootvol/private.py`: `tag == _ACL_GROUP and not _is_own_group(number)` -> `False`
    Break: `src/bootvol/private.py`: `mode |= rights & most` -> `mode |= 0`
    """
    file, folder = tmp_path / "secret", tmp_path / "folder"
    file.touch()
    folder.mkdir(exist_ok=True)
    for path in (file, folder):
        # The group is the daemon's own, so the mask alone gives others nothing.
        os.chown(path, owner, OUR_GROUP)
        grant(path, *named, rights, mask)
    given = rights & mask if named[1] in (STRANGER, OTHER_GROUP) else 0
    assert bool(faults(folder, Kept.FOLDER)) == bool(given & 2)
    assert bool(faults(folder / "within", Kept.PLACE)) == bool(given & 2)
    # The mask counts as the group's rights, which only the root's secrets may have, to read.
    most = 0o7 if owner == ME else 0o3
    assert bool(faults(file, Kept.SECRET)) == bool(given or mask & most)
    file.chmod(0o600)
    assert not faults(file, Kept.SECRET)


@pytest.mark.parametrize("depth", range(4))
def test_no_parent_lets_others_replace_a_path(tmp_path: Path, depth: int) -> None:
    """Break: `src/bootvol/private.py`: `found = _way(key, path)` -> `found = None`"""
    folders = [tmp_path.joinpath(*"abcd"[: n + 1]) for n in range(4)]
    folders[-1].mkdir(parents=True)
    file = folders[-1] / "secret"
    file.touch(mode=0o600)
    assert not faults(file, Kept.SECRET)
    folders[depth].chmod(0o777)
    (fault,) = faults(file, Kept.SECRET)
    assert f"Run: chmod go-w {folders[depth]}" in fault


@pytest.mark.parametrize("kept", [Kept.FOLDER, Kept.CLOSED])
def test_nobody_is_told_to_close_the_folder_of_all_users(kept: Kept) -> None:
    """All programs of a machine need /tmp."""
    (fault,) = private.check("key", Path("/tmp"), kept)
    assert fault.remedy == "Name a folder of the daemon's own."


def test_links_are_followed_as_the_system_does(tmp_path: Path) -> None:
    """A link lies in a folder as well, and so does each further link on the way.

    Break: `src/bootvol/private.py`: `if not stat.S_ISLNK(found.st_mode):` -> `if True:`
    """
    for name in ("safe", "open"):
        (tmp_path / name).mkdir(mode=0o700)
    (tmp_path / "open").chmod(0o777)
    secret = tmp_path / "safe" / "secret"
    secret.touch(mode=0o600)
    middle = tmp_path / "open" / "middle"
    middle.symlink_to("../safe/secret")
    first = tmp_path / "safe" / "first"
    first.symlink_to(middle)
    assert not faults(secret, Kept.SECRET)
    assert "open, and so replace the path" in faults(first, Kept.SECRET)[0]
    # With the sticky bit, others can replace their own files, but not ours.
    (tmp_path / "open").chmod(0o1777)
    assert not faults(first, Kept.SECRET)
    os.chown(middle, STRANGER, -1, follow_symlinks=False)
    assert f"{middle} belongs to the user {STRANGER}" in faults(first, Kept.SECRET)[0]


def test_links_without_an_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("a")
    assert faults(tmp_path / "a" / "b", Kept.FOLDER) == []


@pytest.mark.usefixtures("as_me")
@pytest.mark.parametrize(
    ("members", "primary", "fine"),
    [([], None, True), (["me"], None, True), (["ann"], None, False), ([], STRANGER, False)],
)
def test_a_group_is_ours_if_nobody_else_is_in_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    members: list[str],
    primary: int | None,
    fine: bool,
) -> None:
    names = {0: "root", ME: "me", STRANGER: "ann"}
    people = [SimpleNamespace(pw_uid=uid, pw_gid=OUR_GROUP) for uid in (ME, primary) if uid]
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: SimpleNamespace(pw_name=names[uid]))
    monkeypatch.setattr(pwd, "getpwall", lambda: people)
    monkeypatch.setattr(grp, "getgrgid", lambda _gid: SimpleNamespace(gr_mem=members))
    folder = tmp_path / "folder"
    folder.mkdir()
    os.chown(folder, ME, OUR_GROUP)
    folder.chmod(0o770)
    assert bool(faults(folder, Kept.FOLDER)) == (not fine)


def test_a_folder_is_made_for_the_daemon_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        private.make("key", tmp_path / "a" / "b")
    finally:
        os.umask(before)
    for each in (tmp_path / "a", tmp_path / "a" / "b"):
        assert stat.S_IMODE(each.stat().st_mode) == 0o700
    (tmp_path / "a").chmod(0o777)
    with pytest.raises(ConfigurationError, match="chmod go-w"):
        private.make("key", tmp_path / "a" / "b")


# --- every setting --------------------------------------------------------------------------------


@attrs.frozen
class Setting:
    """A setting of a model.

    :ivar models: field names, from the table's model to the setting's model.
    """

    table: str
    models: tuple[tuple[str, type[BaseModel]], ...]
    annotation: Any

    def __str__(self) -> str:
        return ".".join([self.table, *(name for name, _ in self.models)])

    def options(self, value: object) -> BaseModel:
        """Return settings with only this setting."""
        for name, model in reversed(self.models):
            fields: dict[str, Any] = {**dict.fromkeys(model.model_fields), name: value}
            value = model.model_construct(None, **fields)
        assert isinstance(value, BaseModel)
        return value


def settings_of(table: str, model: type[BaseModel], above: tuple[Any, ...] = ()) -> Iterator[Any]:
    """Yield every setting of a model, including nested models."""
    for name, field in model.model_fields.items():
        here = (*above, (name, model))
        annotation = (field.annotation, *field.metadata)
        yield Setting(table, here, annotation)
        for part in parts_of(field.annotation):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from settings_of(table, part, here)


def parts_of(annotation: Any) -> Iterator[Any]:
    """Yield all parts of a type."""
    yield annotation
    for part in annotation if isinstance(annotation, tuple) else get_args(annotation):
        yield from parts_of(part)


CORE: Final = [
    each
    for each in vars(tables).values()
    if isinstance(each, type) and issubclass(each, Options) and each is not Options
]
SETTINGS: Final = [
    *(each for model in CORE for each in settings_of(model.__name__, model)),
    *(
        each
        for _, point in plugins.found()
        for each in settings_of(point.name, point.load().settings)
        # Plugins installed only for a test have their own rules.
        if point.value.startswith("bootvol_plugins.")
    ),
]
PATHS: Final = [each for each in SETTINGS if Path in parts_of(each.annotation)]


def test_every_path_says_how_it_is_kept() -> None:
    """A new setting with a path has to state the rights of other users on the path.

    Break: `plugins/bootvol_plugins/embedded/options.py`: `key_file: SecretFile` -> `key_file: Path`
    """
    assert len(PATHS) > 10
    assert [str(each) for each in PATHS if private.kept_as(list(each.annotation)) is None] == []
    shared = [str(each) for each in PATHS if Kept.SHARED in parts_of(each.annotation)]
    # A team may put images there; each image is judged when bootvol reads the image.
    assert shared == ["directory.directory"]


@pytest.mark.parametrize("setting", PATHS, ids=str)
def test_no_path_of_the_settings_is_open(setting: Setting, tmp_path: Path) -> None:
    """Break: `src/bootvol/private.py`: `if isinstance(value, BaseModel):` -> `if False:`

    Break: `src/bootvol/private.py`: `isinstance(value, Path) and kept is not None` -> `False`
    """
    kept = private.kept_as(list(setting.annotation))
    path = tmp_path / "path"
    if kept is Kept.SHARED:
        return
    if kept in (Kept.FOLDER, Kept.CLOSED, Kept.CREDENTIALS):
        path.mkdir(mode=0o700)
    else:
        path.touch(mode=0o600)
    options = setting.options(path)
    assert list(private.check_options(options)) == []
    spoilt = {Kept.SECRET: 0o644, Kept.CLOSED: 0o711}.get(kept or Kept.SHARED, 0o702)
    path.chmod(spoilt)
    (found,) = private.check_options(options)
    assert found.fatal
    assert found.key == ".".join(name for name, _ in setting.models)


def test_keys_among_certificates(tmp_path: Path) -> None:
    for name in ("ca-cert.pem", "server-cert.pem", "server-key.pem"):
        (tmp_path / name).touch(mode=0o644)
    (fault,) = faults(tmp_path, Kept.CREDENTIALS)
    assert f"Run: chmod 600 {tmp_path}/server-key.pem" in fault
    (tmp_path / "server-key.pem").chmod(0o600)
    (tmp_path / "ca-cert.pem").chmod(0o646)
    assert "may write to the file" in faults(tmp_path, Kept.CREDENTIALS)[0]


#: Parts of the names of secrets.
SECRET: Final = re.compile("token|password|secret|hash|passphrase")
#: Settings with the text of a secret.
TEXTS: Final = [
    each
    for each in SETTINGS
    if SECRET.search(each.models[-1][0])
    and {str, SecretStr}.intersection(parts_of(each.annotation))
    and not any(isinstance(p, type) and issubclass(p, BaseModel) for p in parts_of(each.annotation))
]


def test_there_are_secrets() -> None:
    assert len(TEXTS) > 4


@pytest.mark.parametrize("setting", TEXTS, ids=str)
def test_where_a_secret_comes_from_is_known(setting: Setting, tmp_path: Path) -> None:
    """`indirect` reads every secret and records the source; plugins never read secrets themselves.

    Break: `src/bootvol/options.py`: `secrets.files.add(path)` -> `pass`
    """
    (name, model), secrets = setting.models[-1], Secrets()
    file = tmp_path / "secret"
    file.write_text(HASH)
    context = {BASE: tmp_path, SECRETS: secrets}
    table = {**dict.fromkeys(model.model_fields, 0), name: "file:secret"}
    # The other keys of the table are wrong.
    with contextlib.suppress(ValidationError):
        model.model_validate(table, context=context)
    assert secrets == Secrets({file}, written=False)
    with contextlib.suppress(ValidationError):
        model.model_validate({**table, name: HASH}, context=context)
    assert secrets.written
