"""The checks of the machine: each mistake names the file, the key, the value and the remedy."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import attrs
import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from bootvol import locks, machine, plugins, reading, settings
from bootvol.errors import ConfigurationError
from bootvol.jail import Jail, trial
from bootvol.jail.program import Lacking
from bootvol.reactors import installed
from tests.daemons import STATIC, configuration
from tests.servers import free_port
from tests.waiting import LIMIT

#: Confines a real program; most tests replace this function.
FAILURE = trial._failure
LISTEN = 'listen = ["tcp:{port}:interface=127.0.0.1"]'


@attrs.frozen
class World:
    """A folder with a correct configuration. Each case spoils one thing.

    :ivar port: a free port for the API.
    """

    folder: Path
    port: int
    sockets: list[socket.socket]

    def write(self, old: str = "", new: str = "", more: str = "") -> Path:
        """Write the configuration, with one text replaced and one appended."""
        text = configuration(self.port, more)
        assert old in text
        return self.file("twistd.conf", text.replace(old, new, 1).encode())

    def spoil_listen(self, *endpoints: str) -> Path:
        """Write the configuration with other endpoints."""
        listen = ", ".join(f'"{each}"' for each in endpoints)
        return self.write(LISTEN.format(port=self.port), f"listen = [{listen}]")

    def file(self, name: str, content: bytes = b"x") -> Path:
        """Make a file that no other user may read."""
        path = self.folder / name
        path.write_bytes(content)
        path.chmod(0o600)
        return path


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A correct configuration on a correct machine."""
    (tmp_path / "images").mkdir()
    world = World(tmp_path, free_port(), [])
    yield world
    for each in world.sockets:
        each.close()


def examine(file: Path) -> list[machine.Finding]:
    """Check the machine for a configuration file."""
    return machine.examine(settings.load(file), installed())


@pytest.fixture(autouse=True)
def _no_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_failure", lambda _: None)


def test_a_right_configuration(world: World) -> None:
    before = sorted(world.folder.rglob("*"))
    file = world.write()
    assert examine(file) == []
    # Nothing was made.
    assert sorted(world.folder.rglob("*")) == sorted([*before, file])


def test_a_disk_without_locks(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS without its lock service, say."""

    def flock(_descriptor: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    config = settings.load(world.write())
    file = Path(str(config.database.database))
    lock, _ = locks.take_directory(config.state.directory)
    for each in lock, locks.take_database(file):
        os.close(each)
    assert examine(config.file) == []
    monkeypatch.setattr(fcntl, "flock", flock)
    why = "the file cannot be locked: No locks available. Name a folder on a disk with locks"
    assert [each.line.count(why) for each in examine(config.file)] == [1, 1]
    for take in (
        lambda: locks.take_directory(config.state.directory),
        lambda: locks.take_database(file),
    ):
        with pytest.raises(ConfigurationError, match=why):
            take()


def port_in_use(world: World) -> Path:
    taken = socket.create_server(("127.0.0.1", world.port))
    world.sockets.append(taken)
    return world.write()


def socket_in_use(world: World) -> Path:
    taken = socket.socket(socket.AF_UNIX)
    taken.bind(str(world.folder / "s"))
    taken.listen(1)
    world.sockets.append(taken)
    return world.spoil_listen(f"unix:{world.folder}/s")


def socket_with_a_long_path(world: World) -> Path:
    return world.spoil_listen(f"unix:/tmp/{'x' * 120}")


def socket_without_a_path(world: World) -> Path:
    return world.spoil_listen("unix:")


def port_that_is_none(world: World) -> Path:
    return world.spoil_listen("tcp:99999")


def address_of_another_machine(world: World) -> Path:
    return world.spoil_listen(f"tcp:{world.port}:interface=192.0.2.1")


def second_port_in_use(world: World) -> Path:
    taken = socket.create_server(("127.0.0.1", 0))
    world.sockets.append(taken)
    other = taken.getsockname()[1]
    here = "interface=127.0.0.1"
    return world.spoil_listen(f"tcp:{world.port}:{here}", f"tcp:{other}:{here}")


def two_endpoints_at_one_port(world: World) -> Path:
    here = "interface=127.0.0.1"
    return world.spoil_listen(f"tcp:{world.port}:{here}", f"tcp:port={world.port}:{here}")


def ipv4_behind_ipv6(world: World) -> Path:
    return world.spoil_listen(f"tcp6:{world.port}", f"tcp:{world.port}")


def two_endpoints_at_one_path(world: World) -> Path:
    return world.spoil_listen(f"unix:{world.folder}/s", f"unix:{world.folder}/./s")


def socket_that_nobody_has(world: World) -> Path:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(world.folder / "s"))
    return world.spoil_listen(f"unix:{world.folder}/s")


def socket_is_a_file(world: World) -> Path:
    return world.spoil_listen(f"unix:{world.file('s')}")


def socket_in_a_folder_that_is_missing(world: World) -> Path:
    return world.spoil_listen(f"unix:{world.folder}/none/s")


def backlog_beyond_all_numbers(world: World) -> Path:
    return world.spoil_listen(f"tcp:{world.port}:backlog=99999999999999")


def endpoint_that_is_no_server(world: World) -> Path:
    return world.spoil_listen("stdio:")


def socket_in_a_folder_of_everybody(world: World) -> Path:
    (world.folder / "open").mkdir()
    (world.folder / "open").chmod(0o777)
    return world.spoil_listen(f"unix:{world.folder}/open/s")


def socket_in_no_folder(world: World) -> Path:
    return world.spoil_listen(f"unix:{world.file('f')}/socket")


def state_is_a_file(world: World) -> Path:
    world.file("state")
    return world.write('directory = "."', 'directory = "state"')


def state_in_a_file(world: World) -> Path:
    world.file("state")
    return world.write('directory = "."', 'directory = "state/deeper"')


def state_with_a_long_name(world: World) -> Path:
    return world.write('directory = "."', f'directory = "{"x" * 300}"')


def state_of_another_daemon(world: World) -> Path:
    world.file("daemon.lock", b"worker-1 1")
    return world.write()


def state_with_a_lock_of_something_else(world: World) -> Path:
    world.file("daemon.lock", b"\xff\xfe")
    return world.write()


def state_with_a_lock_that_is_a_folder(world: World) -> Path:
    (world.folder / "daemon.lock").mkdir()
    return world.write()


def database_with_a_lock_that_is_a_folder(world: World) -> Path:
    (world.folder / "bootvol.db.lock").mkdir()
    return world.write()


def database_is_damaged(world: World) -> Path:
    world.file("bootvol.db", b"SQLite format 3\0" + b"garbage" * 1000)
    return world.write()


def database_of_another_program(world: World) -> Path:
    with sqlite3.connect(world.file("bootvol.db", b"")) as db:
        db.execute("CREATE TABLE volumes (x)")
    db.close()
    return world.write()


def database_in_a_file(world: World) -> Path:
    world.file("db")
    return world.write("sqlite:///bootvol.db", "sqlite:///db/bootvol.db")


def database_is_something_else(world: World) -> Path:
    world.file("bootvol.db", b"not a database at all")
    return world.write()


def database_is_a_pipe(world: World) -> Path:
    os.mkfifo(world.folder / "bootvol.db", 0o600)
    return world.write()


def database_is_a_link_to_itself(world: World) -> Path:
    (world.folder / "bootvol.db").symlink_to("bootvol.db")
    return world.write()


def database_with_a_long_name(world: World) -> Path:
    return world.write("bootvol.db", "x" * 300)


def credentials_with_a_long_name(world: World) -> Path:
    tables = '[exports]\nby = "tls"\nhost = "127.0.0.1"\ncredentials = "{}"\n'
    return world.write(more=tables.format("x" * 300))


def database_is_a_folder(world: World) -> Path:
    (world.folder / "bootvol.db").mkdir()
    return world.write()


def database_of_a_later_bootvol(world: World) -> Path:
    with sqlite3.connect(world.file("bootvol.db", b"")) as db:
        db.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        db.execute("INSERT INTO alembic_version VALUES ('9999')")
    db.close()
    return world.write()


def no_postgresql(world: World) -> Path:
    url = f"postgresql://u:hidden-password@127.0.0.1:{free_port()}/none"
    return world.write("sqlite:///bootvol.db", url)


def spool_in_a_file(world: World) -> Path:
    world.file("spool")
    return world.write(more='[imports]\nspool = "spool/deeper"')


def spool_is_a_file(world: World) -> Path:
    world.file("spool")
    return world.write(more='[imports]\nspool = "spool"')


def volumes_in_a_file(world: World) -> Path:
    world.file("disk")
    return world.write('directory = "volumes"', 'directory = "disk/volumes"')


def volumes_is_a_file(world: World) -> Path:
    world.file("volumes")
    return world.write()


def exports_in_too_long_a_folder(world: World) -> Path:
    return world.write(more=f'[exports]\nby = "unix"\ndirectory = "{"x" * 60}"')


def exports_in_a_file(world: World) -> Path:
    world.file("e")
    return world.write(more='[exports]\nby = "unix"\ndirectory = "/dev/null/e"')


def exports_at_another_machine(world: World) -> Path:
    pki(world)
    return world.write(more='[exports]\nby = "tls"\nhost = "192.0.2.1"\ncredentials = "pki"')


def exports_without_certificates(world: World) -> Path:
    return world.write(more='[exports]\nby = "tls"\nhost = "127.0.0.1"\ncredentials = "pki"')


def pki(world: World, host: str = "127.0.0.1", **more: Any) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert(host, **more)
    folder = world.folder / "pki"
    folder.mkdir()
    authority.cert_pem.write_to_path(folder / "ca-cert.pem")
    issued.cert_chain_pems[0].write_to_path(folder / "server-cert.pem")
    issued.private_key_pem.write_to_path(folder / "server-key.pem")
    (folder / "server-key.pem").chmod(0o600)


def hypervisor_without_program(world: World) -> Path:
    more = '[hypervisor]\nplugin = "qemu"\ndirectory = "servers"\nbinary = "qemu-none"'
    return world.write(more=more)


def hypervisor_with_another_program(world: World) -> Path:
    more = '[hypervisor]\nplugin = "qemu"\ndirectory = "servers"\nbinary = "/bin/true"'
    return world.write(more=more)


def hypervisor_in_a_file(world: World) -> Path:
    world.file("servers")
    return world.write(more='[hypervisor]\nplugin = "qemu"\ndirectory = "servers"')


def hypervisor_in_a_folder_of_everybody(world: World) -> Path:
    (world.folder / "servers").mkdir()
    (world.folder / "servers").chmod(0o777)
    return world.write(more='[hypervisor]\nplugin = "qemu"\ndirectory = "servers"')


def hypervisor_without_a_key(world: World) -> Path:
    pki(world)
    return world.write(more='[hypervisor]\nplugin = "qemu"\ndirectory = "s"\ntls = "pki"')


def keyring_that_is_missing(world: World) -> Path:
    more = '[[sources]]\nname = "web"\nplugin = "http"\nallow = ["https://x/"]\n'
    return world.write(more=more + 'keyring = "none.gpg"')


def keyring_of_something_else(world: World) -> Path:
    world.file("keys.gpg", b"debian\n")
    more = '[[sources]]\nname = "web"\nplugin = "http"\nallow = ["https://x/"]\n'
    return world.write(more=more + 'keyring = "keys.gpg"')


def keyring_with_a_damaged_armour(world: World) -> Path:
    begin, end = (f"-----{word} PGP PUBLIC KEY BLOCK-----\n" for word in ("BEGIN", "END"))
    world.file("keys.asc", f"{begin}\nA\n{end}".encode())
    more = '[[sources]]\nname = "web"\nplugin = "http"\nallow = ["https://x/"]\n'
    return world.write(more=more + 'keyring = "keys.asc"')


def keyring_with_a_private_key(world: World) -> Path:
    # RFC 9580, section 5: a secret key has the tag 5.
    world.file("keys.gpg", bytes([0x80 | 5 << 2, 1, 4]))
    more = '[[sources]]\nname = "web"\nplugin = "http"\nallow = ["https://x/"]\n'
    return world.write(more=more + 'keyring = "keys.gpg"')


def state_without_files(world: World) -> Path:
    return world.write('directory = "."', 'directory = "/proc/bootvol"')


def database_without_files(world: World) -> Path:
    return world.write("sqlite:///bootvol.db", "sqlite:////proc/x.db")


def spool_without_files(world: World) -> Path:
    return world.write(more='[imports]\nspool = "/sys"')


def volumes_without_files(world: World) -> Path:
    return world.write('directory = "volumes"', 'directory = "/dev/pts/volumes"')


def socket_without_files(world: World) -> Path:
    return world.spoil_listen("unix:/proc/bootvol.sock")


def identity_key_that_is_short(world: World) -> Path:
    world.file("key", b"short")
    return world.write(STATIC, EMBEDDED_IDENTITY + 'key_file = "key"\n' + PEOPLE)


def hypervisor_without_certificates(world: World) -> Path:
    more = '[hypervisor]\nplugin = "qemu"\ndirectory = "servers"\ntls = "none"'
    return world.write(more=more)


def authorities_that_are_none(world: World) -> Path:
    world.file("ca.pem")
    more = '[[sources]]\nname = "web"\nplugin = "http"\nallow = ["https://x/"]\nca = "ca.pem"'
    return world.write(more=more)


def authorities_that_are_missing(world: World) -> Path:
    more = '[[sources]]\nname = "web"\nplugin = "http"\nallow = ["https://x/"]\nca = "ca.pem"'
    return world.write(more=more)


def identity_key_that_is_missing(world: World) -> Path:
    return world.write(STATIC, EMBEDDED_IDENTITY + 'key_file = "key"\n' + PEOPLE)


def identity_in_a_file(world: World) -> Path:
    world.file("identity")
    return world.write(STATIC, EMBEDDED_IDENTITY + 'directory = "identity"\n' + PEOPLE)


def keystone_authorities(world: World) -> Path:
    keystone = '[identity]\nplugin = "keystone"\nurl = "https://x"\nusername = "u"\n'
    return world.write(STATIC, keystone + 'password = "p"\nca = "none.pem"\n')


def no_volume_group(world: World) -> Path:
    more = '[[backends]]\nname = "disks"\nplugin = "lvm"\ngroup = "no-such-group"'
    return world.write(more=more)


def no_ceph_configuration(world: World) -> Path:
    more = '[[backends]]\nname = "ceph"\nplugin = "rbd"\npool = "p"\nconf = "none.conf"'
    return world.write(more=more)


def no_ceph_key(world: World) -> Path:
    world.file("ceph.conf")
    more = '[[backends]]\nname = "ceph"\nplugin = "rbd"\npool = "p"\n'
    return world.write(more=more + 'conf = "ceph.conf"\nkeyring = "none.key"')


SAME_FLAVORS = "".join(f'[[flavors]]\nid = "{n}"\nname = "x"\nram = 100\n' for n in "12")
SECOND_BACKEND = '\n[[backends]]\nname = "other"\nplugin = "file"\ndirectory = "x/../volumes"\n'

EMBEDDED_IDENTITY = '[identity]\nplugin = "embedded"\n'
PEOPLE = """
[[identity.projects]]
name = "demo"

[[identity.users]]
name = "ann"
password_hash = "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$ZGlnZXN0ZGlnZXN0ZGlnZXN0"
roles = { demo = ["admin"] }
"""
KEY_AMONG_IMAGES = EMBEDDED_IDENTITY + 'key_file = "images/key"\n' + PEOPLE


@pytest.mark.parametrize(
    ("spoil", "key", "words"),
    [
        (port_in_use, "api.listen[0]", "another program listens there"),
        (second_port_in_use, "api.listen[1]", "name another port"),
        (address_of_another_machine, "api.listen[0]", "not one of this machine"),
        (socket_in_use, "api.listen[0]", "name another path"),
        (socket_with_a_long_path, "api.listen[0]", "bytes"),
        (socket_without_a_path, "api.listen[0]", "0 bytes"),
        (port_that_is_none, "api.listen[0]", "the port does not exist"),
        (two_endpoints_at_one_port, "api.listen[1]", "an earlier endpoint listens"),
        (ipv4_behind_ipv6, "api.listen[1]", "tcp6 serves IPv4"),
        (two_endpoints_at_one_path, "api.listen[1]", "an earlier endpoint listens"),
        (socket_that_nobody_has, "api.listen[0]", "another file has this path"),
        (socket_is_a_file, "api.listen[0]", "another file has this path"),
        (socket_in_a_folder_that_is_missing, "api.listen[0]", "does not exist"),
        (backlog_beyond_all_numbers, "api.listen[0]", "the backlog is too large"),
        (endpoint_that_is_no_server, "api.listen[0]", "does not listen"),
        (state_with_a_long_name, "state.directory", "longer than 255 bytes"),
        (state_of_another_daemon, "state.directory", "is a copy of another daemon's"),
        (state_with_a_lock_of_something_else, "state.directory", "not written by a daemon"),
        (state_with_a_lock_that_is_a_folder, "state.directory", "cannot be written"),
        (database_with_a_lock_that_is_a_folder, "state.url", "cannot be written"),
        (database_is_damaged, "state.url", "cannot be read"),
        (database_of_another_program, "state.url", "another program"),
        (hypervisor_in_a_folder_of_everybody, "hypervisor.directory", "may write to the folder"),
        (hypervisor_without_a_key, "hypervisor.tls", "client-key.pem cannot be used"),
        (keyring_that_is_missing, "sources[1].keyring", "cannot be read"),
        (keyring_of_something_else, "sources[1].keyring", "contains no public key"),
        (keyring_with_a_damaged_armour, "sources[1].keyring", "the armour of the keys is damaged"),
        (keyring_with_a_private_key, "sources[1].keyring", "contains no public key"),
        (state_without_files, "state.directory", "without files of programs (proc)"),
        (database_without_files, "state.url", "without files of programs (proc)"),
        (spool_without_files, "imports.spool", "without files of programs (sysfs)"),
        (volumes_without_files, "backends[0].directory", "without files of programs (devpts)"),
        (socket_without_files, "api.listen[0]", "without files of programs (proc)"),
        (identity_key_that_is_short, "identity.key_file", "at least 32 are needed"),
        (socket_in_no_folder, "api.listen[0]", "is not a folder"),
        (socket_in_a_folder_of_everybody, "api.listen[0]", "and so replace the path"),
        (state_is_a_file, "state.directory", "is not a folder"),
        (state_in_a_file, "state.directory", "is not a folder"),
        (database_in_a_file, "state.url", "is not a folder"),
        (database_is_something_else, "state.url", "not an SQLite database"),
        (database_is_a_folder, "state.url", "is not a regular file"),
        (database_is_a_pipe, "state.url", "is not a regular file"),
        (database_is_a_link_to_itself, "state.url", "Too many levels"),
        (database_with_a_long_name, "state.url", "File name too long"),
        (credentials_with_a_long_name, "exports.credentials", "File name too long"),
        (database_of_a_later_bootvol, "state.url", "a later version of bootvol"),
        (no_postgresql, "state.url", "the database cannot be used"),
        (spool_in_a_file, "imports.spool", "is not a folder"),
        (spool_is_a_file, "imports.spool", "is not a folder"),
        (volumes_in_a_file, "backends[0].directory", "is not a folder"),
        (volumes_is_a_file, "backends[0].directory", "is not a folder"),
        (exports_in_too_long_a_folder, "exports.directory", "leave room for sockets"),
        (exports_in_a_file, "exports.directory", "is not a folder"),
        (exports_at_another_machine, "exports.host", "cannot listen at"),
        (exports_without_certificates, "exports.credentials", "pki"),
        (hypervisor_without_program, "hypervisor.binary", "apt-get install qemu-system-x86"),
        (hypervisor_with_another_program, "hypervisor.binary", "not a QEMU that emulates PCs"),
        (hypervisor_in_a_file, "hypervisor.directory", "is not a folder"),
        (hypervisor_without_certificates, "hypervisor.tls", "no certificate can be read"),
        (authorities_that_are_none, "sources[1].ca", "no certificate can be read"),
        (authorities_that_are_missing, "sources[1].ca", "No such file"),
        (identity_key_that_is_missing, "identity.key_file", "cannot be read"),
        (identity_in_a_file, "identity.directory", "is not a folder"),
        (keystone_authorities, "identity.ca", "No such file"),
        (no_volume_group, "backends[1].group", "no-such-group"),
        (no_ceph_configuration, "backends[1].conf", "cannot be read"),
        (no_ceph_key, "backends[1].keyring", "cannot be read"),
    ],
)
def test_a_mistake(world: World, spoil: Callable[[World], Path], key: str, words: str) -> None:
    file = spoil(world)
    found = [each for each in examine(file) if each.fatal]
    assert found
    for each in found:
        assert each.line.startswith(f"{file}: {key}: "), each.line
        assert each.line.endswith((".", "lvm.")) or re.search("apt-get install|Run: ", each.line)
    assert any(words in each.line for each in found), found
    assert not any("hidden-password" in each.line for each in found)


@pytest.mark.parametrize(
    ("old", "new", "more", "words"),
    [
        ('directory = "images"', 'directory = "elsewhere"', "", "the folder does not exist"),
        (
            'directory = "volumes"',
            'directory = "volumes"\nmounted = true',
            "",
            "nothing is mounted",
        ),
        ("", "", "[imports]\nbuffers = 64\nbuffer_kib = 32768\nconcurrent = 64", "may take"),
        ("", "", '[imports]\nspool_gib = 100000.0\nspool = "images/.."', "GiB free"),
        ("", "", '[imports]\nspool_gib = 100000.0\nspool = "spool"', "GiB free"),
        ("", "", "[sandbox]\nfirst_user = 1", "sandbox.first_user: 1: the user "),
        (
            'roles = ["admin"]',
            'roles = ["Admin", "amdin"]',
            "",
            "identity.tokens[1].roles: 'amdin': no right in [policy] has this role",
        ),
        (
            'roles = ["admin"]',
            'roles = ["admin", "auditor"]',
            '[policy]\nread = ["member"]',
            "identity.tokens[1].roles: 'auditor': no right",
        ),
    ],
)
def test_a_warning(world: World, old: str, new: str, more: str, words: str) -> None:
    """The daemon starts nevertheless."""
    (found,) = examine(world.write(old, new, more))
    assert words in found.line
    assert not found.fatal


MONITORS = "[global]\nmon_host = 192.0.2.1\n"
KEY = "[client.bootvol]\nkey = AA==\n"


@pytest.mark.parametrize(
    "conf", [MONITORS, "[global]\nmon host = 192.0.2.1\n", "[mon.a]\n  mon addr = 192.0.2.1\n"]
)
def test_monitors_that_a_file_names(world: World, conf: str) -> None:
    world.file("ceph.conf", conf.encode())
    world.file("key", KEY.encode())
    more = '[[backends]]\nname = "ceph"\nplugin = "rbd"\npool = "p"\n'
    assert examine(world.write(more=more + 'conf = "ceph.conf"\nkeyring = "key"')) == []


@pytest.mark.parametrize(
    ("conf", "keyring", "words"),
    [
        ("not a configuration", KEY, "backends[1].conf: "),
        (MONITORS, "nonsense", "the file is not a keyring of Ceph"),
        (MONITORS, KEY.replace("bootvol", "admin"), "the file has no key of client.bootvol"),
        ("[global]\nfsid = 1\n", KEY, "the file names no monitors. Add mon_host"),
    ],
)
def test_what_a_cluster_would_refuse(world: World, conf: str, keyring: str, words: str) -> None:
    world.file("ceph.conf", conf.encode())
    world.file("key", keyring.encode())
    more = '[[backends]]\nname = "ceph"\nplugin = "rbd"\npool = "p"\n'
    (found,) = examine(world.write(more=more + 'conf = "ceph.conf"\nkeyring = "key"'))
    assert words in found.line
    assert not found.fatal


@pytest.mark.parametrize(
    ("index", "words"),
    [
        ("nonsense [", "the index is not valid"),
        ("[[images]]\nid = 'x'\nfile = 'x'\nsha512 = 'short'", "sha512"),
        ("[[images]]\nid = 'x'\nfile = 'none.raw'", "'none.raw', which is not in the folder"),
        ("[[images]]\nid = 'x'\nfile = 'folder'", "'folder', which is not a file"),
        (
            "[[images]]\nid = 'x'\nfile = 'a.raw'\nformat = 'floppy'",
            "'floppy', which bootvol does not read",
        ),
        ('[[images]]\nid = "a\\u0000b"\nfile = "a.raw"', "control characters"),
        ("[[images]]\nid = 'x'\nfile = 'a.raw'\nmin_disk = 9999999999999", "min_disk"),
    ],
)
def test_an_index_of_images(world: World, index: str, words: str) -> None:
    (world.folder / "images" / "folder").mkdir()
    (world.folder / "images" / "a.raw").touch()
    (world.folder / "images" / "index.toml").write_text(index)
    (found,) = examine(world.write())
    assert words in found.line
    assert "\n" not in found.line
    assert not found.fatal


@pytest.mark.parametrize(
    ("host", "valid", "words"),
    [
        ("other.example", {}, "is not valid for '127.0.0.1'"),
        (
            "127.0.0.1",
            {"not_before": datetime(2019, 1, 1), "not_after": datetime(2020, 1, 1)},
            "has expired",
        ),
    ],
)
def test_certificates_that_clients_of_exports_refuse(
    world: World, host: str, valid: dict[str, Any], words: str
) -> None:
    pki(world, host, **valid)
    more = '[exports]\nby = "tls"\nhost = "127.0.0.1"\ncredentials = "pki"'
    (found,) = examine(world.write(more=more))
    assert "exports.credentials: " in found.line
    assert words in found.line
    assert not found.fatal


@pytest.mark.parametrize("right", [True, False])
def test_the_certificate_of_a_hypervisor(world: World, right: bool) -> None:
    pki(world)
    folder = world.folder / "pki"
    for kind in ("cert", "key"):
        (folder / f"server-{kind}.pem").rename(folder / f"client-{kind}.pem")
    if not right:
        trustme.CA().cert_pem.write_to_path(folder / "ca-cert.pem")
    more = '[hypervisor]\nplugin = "qemu"\ndirectory = "servers"\ntls = "pki"'
    found = examine(world.write(more=more))
    assert ["will not trust client-cert.pem" in each.line for each in found] == [True] * (not right)


def listen_with_tls(world: World) -> Path:
    folder = world.folder / "pki"
    return world.spoil_listen(
        f"ssl:{world.port}:privateKey={folder}/server-key.pem:certKey={folder}/server-cert.pem"
    )


def test_a_certificate_of_the_api_that_is_not_valid_any_more(world: World) -> None:
    pki(world, not_before=datetime(2019, 1, 1), not_after=datetime(2020, 1, 1))
    (found,) = examine(listen_with_tls(world))
    assert "from 2019-01-01 00:00 to 2020-01-01 00:00 UTC, and not now" in found.line
    assert not found.fatal


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_nobody_is_asked_for_the_passphrase_of_a_key(world: World, form: PrivateFormat) -> None:
    pki(world)
    path = world.folder / "pki" / "server-key.pem"
    key = load_pem_private_key(path.read_bytes(), None)
    path.write_bytes(key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"secret")))
    with pytest.raises(ConfigurationError, match="is encrypted, and the daemon cannot"):
        settings.load(listen_with_tls(world))


#: A configuration with every kind of file and folder that other users must not change.
WHOLE = (
    EMBEDDED_IDENTITY
    + """
directory = "identity"
[[identity.projects]]
name = "demo"
[[identity.users]]
name = "ann"
password_hash = "file:hash"
roles = { demo = ["admin"] }
"""
)
MORE = """
[imports]
spool = "spool"
[exports]
by = "tls"
host = "127.0.0.1"
credentials = "pki"
directory = "exports"
[hypervisor]
plugin = "qemu"
directory = "servers"
"""


@pytest.fixture
def whole(world: World) -> Path:
    """A correct configuration with every kind of file and folder, all present."""
    pki(world)
    for folder in ("state", "identity", "spool", "exports", "servers", "volumes"):
        (world.folder / folder).mkdir(mode=0o700)
    world.file("hash", PEOPLE.partition('password_hash = "')[2].partition('"')[0].encode())
    world.file("state/bootvol.db", b"")
    world.file("identity/key", os.urandom(32))
    text = listen_with_tls(world).read_text().replace(STATIC, WHOLE)
    text = text.replace("///bootvol.db", "///state/bootvol.db")
    text = text.replace('directory = "."', 'directory = "state"')
    return world.file("twistd.conf", (text + MORE).encode())


SECRETS = {
    "state/bootvol.db": "state.url",
    "hash": "identity.users[0].password_hash",
    "identity/key": "identity.directory",
    "pki/server-key.pem": "exports.credentials",
}


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_that_others_may_read(world: World, whole: Path, name: str) -> None:
    """Break: `src/bootvol/secrecy.py`: `in config.secret_files:` -> `in ():`

    Break: `src/bootvol/private.py`: `if not mode & (0o037 if of_root else 0o077):` -> `if True:`
    """
    assert examine(whole) == []
    (world.folder / name).chmod(0o644)
    found = examine(whole)
    assert all(each.fatal for each in found)
    assert all(f"Run: chmod 600 {world.folder / name}" in each.line for each in found)
    assert f"{whole}: {SECRETS[name]}: " in "\n".join(each.line for each in found)


@pytest.mark.parametrize(
    "name",
    [".", "state", "identity", "spool", "exports", "servers", "volumes", "pki", "twistd.conf"],
)
def test_a_path_that_others_may_write_to(world: World, whole: Path, name: str) -> None:
    """Break: `src/bootvol/private.py`: `if _others_write(folder, above):` -> `if False:`

    Break: `src/bootvol/private.py`: `if _others_write(path, found):` -> `if False:`
    """
    path = world.folder / name
    path.chmod(path.stat().st_mode | 0o002)
    found = examine(whole)
    assert found
    for each in found:
        assert each.fatal
        assert re.search(rf"Run: chmod (go-w|700) {re.escape(str(path))}", each.line), each.line


@pytest.mark.parametrize("secret", [True, False])
def test_a_configuration_file_that_others_may_read(world: World, whole: Path, secret: bool) -> None:
    """The daemon starts. The log has a warning if the file contains a secret.

    Break: `src/bootvol/secrecy.py`: `if config.holds_secrets and not found:` -> `if False:`
    """
    if secret:
        hashed = (world.folder / "hash").read_text()
        whole.write_text(whole.read_text().replace("file:hash", hashed))
    whole.chmod(0o644)
    found = examine(whole)
    assert [each.fatal for each in found] == [False] * secret
    assert all(f"Run: chmod 600 {whole}" in each.line for each in found)


def test_a_socket_that_a_killed_daemon_has_left(world: World) -> None:
    socket_that_nobody_has(world)
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    (world.folder / "s.lock").symlink_to(str(ended.pid))
    assert examine(world.spoil_listen(f"unix:{world.folder}/s")) == []


def test_files_that_may_be_open(world: World) -> None:
    file = world.write()
    lowered = "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64));"
    run = "from bootvol.cli import main; sys.argv = ['bootvol', *sys.argv[1:]]; main()"
    code = [sys.executable, "-c", lowered + run, "check-config", "--machine", str(file)]
    ended = subprocess.run(code, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert ended.returncode == 1
    assert "imports.concurrent: 4: the daemon may have 64 files open, and needs" in ended.stderr


def test_a_user_without_roles(world: World) -> None:
    people = PEOPLE.replace('roles = { demo = ["admin"] }', "")
    (found,) = examine(world.write(STATIC, EMBEDDED_IDENTITY + people))
    assert "identity.users[0].roles: 'ann': the user has no role" in found.line
    assert not found.fatal


def test_a_role_of_a_user_that_grants_nothing(world: World) -> None:
    people = PEOPLE.replace('demo = ["admin"]', 'demo = ["admin", "reeder"]')
    (found,) = examine(world.write(STATIC, EMBEDDED_IDENTITY + people))
    assert "identity.users[0].roles.demo: 'reeder': no right in [policy] has this" in found.line
    assert not found.fatal


@pytest.mark.parametrize(
    ("before", "behind", "shared"), [(0, 0, True), (5, 5, True), (5, -1, False)]
)
def test_a_port_of_the_api_among_those_of_exports(
    world: World, before: int, behind: int, shared: bool
) -> None:
    ports = [world.port - before, world.port + behind]
    more = f'[exports]\nby = "tls"\nhost = "127.0.0.1"\ncredentials = "c"\nports = {ports}\n'
    found = [
        each for each in examine(world.write(more=more)) if "one of exports.ports" in each.line
    ]
    assert len(found) == shared
    assert not any(each.fatal for each in found)


def test_an_index_that_is_a_folder(world: World) -> None:
    (world.folder / "images" / "index.toml").mkdir()
    (found,) = examine(world.write())
    assert "the index cannot be read: " in found.line
    assert found.line.endswith("Let index.toml be a file that the daemon's user may read.")


def test_a_folder_of_images_that_is_a_file(world: World) -> None:
    (world.folder / "images").rmdir()
    world.file("images")
    (found,) = examine(world.write())
    assert found.line.endswith("this is not a folder. Name another folder.")


def test_the_ports_of_a_running_daemon_are_left_alone(world: World) -> None:
    taken = socket.create_server(("127.0.0.1", world.port))
    world.sockets.append(taken)
    lock = os.open(world.folder / "daemon.lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (found,) = examine(world.write())
    finally:
        os.close(lock)
    assert "another daemon uses" in found.line


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace('"bob"', '"ann"', 1), "have the same token"),
        (lambda text: text.replace('"volumes"', '"."'), "the same folder. Give each"),
        (lambda text: text.replace('"images"\n', '"volumes"\n'), "sources[0].directory"),
        (lambda text: text.replace('directory = "images"', 'directory = "."'), "as images"),
        (lambda text: text.replace('directory = "images"', 'directory = "x/.."'), "as images"),
        (lambda text: text + SECOND_BACKEND, "backends[1].directory"),
        (lambda text: text.replace('listen = ["', 'listen = ["tcp:1", "tcp:1", "'), "listed twice"),
        (lambda text: text.replace("sqlite:///bootvol.db", "sqlite://"), "sqlite:///PATH"),
        (lambda text: text.replace("sqlite:///bootvol.db", "postgresql://h"), "HOST/NAME"),
        (lambda text: text.replace("bootvol.db", "bootvol.db?mode=ro"), "takes no query"),
        (lambda text: text + SAME_FLAVORS, "the name 'x' is given twice"),
        (lambda text: text.replace('"bob"', '"bo b"', 1), "without spaces"),
        (lambda text: text.replace('"bob"', '"böb"', 1), "visible ASCII"),
        (lambda text: text.replace('"bob"', '"file:none"', 1), "the file none cannot be read"),
        (
            lambda text: text.replace('"bob"', '"file:/dev/zero"', 1),
            "is not a regular file, but a pipe",
        ),
        (
            lambda text: text.replace('"tcp:', '"ssl:/dev/zero:', 1),
            "is not a regular file, but a pipe",
        ),
        (
            lambda text: text.replace('"bob"', '"env:NO_SUCH"', 1),
            "variable NO_SUCH is not set",
        ),
        (lambda text: text.replace("22222222222222", ".."), "identity.tokens[2].tenant"),
        (lambda text: text.replace('user = "bob"', 'user = "b\\u0000b"'), "control characters"),
        (lambda text: 'availability_zone = "a\\nb"\n' + text, "control characters"),
        (lambda text: text + "[quota]\nvolumes = 99999999999999999999", "less than or equal to"),
        (
            lambda text: (
                text.replace('directory = "."', 'directory = "s"')
                .replace("///", "///s/")
                .replace('directory = "images"', 'directory = "."')
            ),
            "the configuration file lies",
        ),
        (lambda text: text.replace("bootvol.db", "boot\\u0000vol.db"), "not a database URL"),
        (lambda text: "x = " + "[" * 3000 + "]" * 3000 + text, "is not valid TOML"),
        (lambda text: "x = " + "9" * 5000 + "\n" + text, "is not valid TOML"),
        (lambda text: text.replace(STATIC, KEY_AMONG_IMAGES), "identity.key_file lies in this"),
    ],
)
def test_a_mistake_in_the_file(world: World, change: Callable[[str], str], words: str) -> None:
    """Every reader of the file refuses these mistakes, since no machine is needed to see them."""
    file = world.write()
    file.write_text(change(file.read_text()))
    with pytest.raises(ConfigurationError) as refused:
        settings.load(file)
    for line in str(refused.value).splitlines():
        assert line.startswith(f"{file}: ")
    assert words in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"no key\n", b"-----BEGIN PRIVATE KEY-----\nabc"])
def test_a_file_without_a_key(world: World, content: bytes) -> None:
    pem = world.file("server.pem", content)
    file = world.spoil_listen(f"ssl:{world.port}:privateKey={pem}:certKey={pem}")
    with pytest.raises(ConfigurationError, match=f"{pem}: no key with its certificate found"):
        settings.load(file)


@pytest.mark.parametrize(
    ("more", "words", "fatal"),
    [
        ("", "the kernel has no Landlock, so imports of qcow2", False),
        ('[exports]\nby = "unix"', "no volume is exported", True),
        ("[sandbox]\nrequired = false", "not confined as they should be: the kernel", False),
    ],
)
def test_a_machine_that_cannot_confine_programs(
    world: World, monkeypatch: pytest.MonkeyPatch, more: str, words: str, fatal: bool
) -> None:
    def landlock() -> int:
        raise Lacking("the kernel has no Landlock")

    monkeypatch.setattr("bootvol.jail.program.landlock", landlock)
    found = next(each for each in examine(world.write(more=more)) if "sandbox." in each.line)
    assert words in found.line
    assert found.fatal is fatal


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda _path: None, "the folder does not exist. Create the folder"),
        (lambda path: path.write_text(""), "this is not a folder. Name another folder."),
        (lambda path: path.symlink_to("nowhere"), "the link leads nowhere. Correct the link"),
    ],
)
def test_folders_of_programs_that_are_none(
    world: World, make: Callable[[Path], object], words: str
) -> None:
    """The daemon runs without such a folder, but the operator hears of the mistake."""
    folder = world.folder / "qemu"
    make(folder)
    (found,) = (
        each
        for each in examine(world.write(more=f'[sandbox]\nprograms = ["/usr", "{folder}"]'))
        if "sandbox." in each.line
    )
    assert f"sandbox.programs[1]: '{folder}': {words}" in found.line
    assert not found.fatal


def test_folders_of_programs_that_confined_programs_cannot_enter(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the folders, and does not advise another kernel."""
    monkeypatch.setattr(
        "bootvol.jail.trial._failure", lambda jail: "Permission denied" if jail.programs else None
    )
    found = next(
        each
        for each in examine(world.write(more='[sandbox]\nprograms = ["/usr"]'))
        if "sandbox." in each.line
    )
    assert "sandbox.programs: ['/usr']: no program runs: Permission denied. Let every" in found.line
    assert not found.fatal


def test_a_program_that_does_nothing_is_confined(monkeypatch: pytest.MonkeyPatch) -> None:
    assert FAILURE(Jail()) is None
    monkeypatch.setattr("sys.executable", "/bin/false")
    assert FAILURE(Jail()) == "a confined program ends with 1"


def test_a_check_of_a_plugin_is_optional(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from bootvol_plugins import file

    plain = attrs.evolve(file.PLUGIN, check=None)
    monkeypatch.setattr(file, "PLUGIN", plain)
    assert examine(volumes_is_a_file(world)) == []


HYPERVISOR = '[hypervisor]\nplugin = "qemu"\ndirectory = "servers"\ntls = "tls"\n'


@pytest.mark.parametrize(
    ("key", "name", "more"),
    [
        ("sources[0].name", "images/index.toml", ""),
        ("hypervisor.name", "tls/ca-cert.pem", HYPERVISOR),
    ],
)
def test_a_check_that_hangs(
    world: World, monkeypatch: pytest.MonkeyPatch, key: str, name: str, more: str
) -> None:
    monkeypatch.setattr(plugins, "PATIENCE", 0.2)
    path = world.folder / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    goes_on = threading.Event()

    def hang(each: Path) -> bytes:
        if each == path:
            goes_on.wait()
        raise FileNotFoundError

    config = settings.load(world.write(more=more))
    monkeypatch.setattr(reading, "check", hang)
    monkeypatch.setattr(reading, "content", hang)
    try:
        (found,) = machine.examine(config, installed())
    finally:
        goes_on.set()
    assert f"{key}: " in found.line
    assert "no answer after" in found.line
    # A daemon can run without a source for a while.
    assert found.fatal == (key != "sources[0].name")


@pytest.mark.parametrize(
    ("user", "url", "by", "warned"),
    [
        (54321, "postgresql:///bootvol", "unix", True),
        (54321, "postgresql://bootvol@/bootvol?host=/run/postgresql", "unix", True),
        (54321, "postgresql://bootvol:secret@/bootvol?host=/run/postgresql", "unix", False),
        (54321, "postgresql://bootvol@database.example/bootvol", "unix", False),
        (54321, "sqlite:///bootvol.db", "unix", False),
        (54321, "postgresql:///bootvol", None, False),
        (0, "postgresql:///bootvol", "unix", False),
    ],
)
def test_a_database_that_guests_could_reach(
    world: World, monkeypatch: pytest.MonkeyPatch, user: int, url: str, by: str | None, warned: bool
) -> None:
    """The operator is told if a guest that breaks out of QEMU could log in to the database.

    Break: `src/bootvol/machine.py`: `and url.password is None:` -> `and False:`.
    """
    more = '[hypervisor]\nplugin = "qemu"\ndirectory = "servers"\n'
    more += f'[exports]\nby = "{by}"\ndirectory = "e"\n' if by else ""
    config = settings.load(world.write("sqlite:///bootvol.db", url, more))
    monkeypatch.setattr(os, "geteuid", lambda: user)
    found = list(machine._guests(config))
    assert bool(found) == warned
    assert not any(each.fatal or "secret" in str(each) for each in found)
