"""The checks of the machine: each mistake names the file, the key, the value and the remedy."""

from __future__ import annotations

import fcntl
import os
import socket
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest
import trustme
from twisted.internet import reactor

from bootvol import machine, settings
from bootvol.errors import ConfigurationError
from tests.daemons import STATIC, configuration
from tests.servers import free_port

LISTEN = 'listen = ["tcp:{port}:interface=127.0.0.1"]'


@attrs.frozen
class World:
    """A folder with a right configuration, of which a case spoils one thing.

    :ivar port: a free one, where the API listens.
    """

    folder: Path
    port: int
    sockets: list[socket.socket]

    def write(self, old: str = "", new: str = "", more: str = "") -> Path:
        """Write the configuration, with one text replaced and more at its end."""
        text = configuration(self.port, more)
        assert old in text
        file = self.folder / "twistd.conf"
        file.write_text(text.replace(old, new, 1))
        return file

    def spoil_listen(self, *endpoints: str) -> Path:
        """Write the configuration with other endpoints."""
        listen = ", ".join(f'"{each}"' for each in endpoints)
        return self.write(LISTEN.format(port=self.port), f"listen = [{listen}]")

    def file(self, name: str, content: bytes = b"x") -> Path:
        """Make a file."""
        path = self.folder / name
        path.write_bytes(content)
        return path


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A right configuration on a right machine."""
    (tmp_path / "images").mkdir()
    world = World(tmp_path, free_port(), [])
    yield world
    for each in world.sockets:
        each.close()


def examine(file: Path) -> list[machine.Finding]:
    """Check the machine for a configuration file."""
    return machine.examine(settings.load(file), reactor)


def test_a_right_configuration(world: World) -> None:
    before = sorted(world.folder.rglob("*"))
    file = world.write()
    assert examine(file) == []
    # Nothing was made.
    assert sorted(world.folder.rglob("*")) == sorted([*before, file])


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


def socket_in_no_folder(world: World) -> Path:
    return world.spoil_listen(f"unix:{world.file('f')}/socket")


def state_is_a_file(world: World) -> Path:
    world.file("state")
    return world.write('directory = "."', 'directory = "state"')


def state_in_a_file(world: World) -> Path:
    world.file("state")
    return world.write('directory = "."', 'directory = "state/deeper"')


def database_in_a_file(world: World) -> Path:
    world.file("db")
    return world.write("sqlite:///bootvol.db", "sqlite:///db/bootvol.db")


def database_is_something_else(world: World) -> Path:
    world.file("bootvol.db", b"not a database at all")
    return world.write()


def database_is_a_folder(world: World) -> Path:
    (world.folder / "bootvol.db").mkdir()
    return world.write()


def database_of_a_later_bootvol(world: World) -> Path:
    with sqlite3.connect(world.folder / "bootvol.db") as db:
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


def pki(world: World) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    folder = world.folder / "pki"
    folder.mkdir()
    authority.cert_pem.write_to_path(folder / "ca-cert.pem")
    issued.cert_chain_pems[0].write_to_path(folder / "server-cert.pem")
    issued.private_key_pem.write_to_path(folder / "server-key.pem")


def hypervisor_without_program(world: World) -> Path:
    more = '[hypervisor]\nplugin = "qemu"\ndirectory = "servers"\nbinary = "qemu-none"'
    return world.write(more=more)


def hypervisor_in_a_file(world: World) -> Path:
    world.file("servers")
    return world.write(more='[hypervisor]\nplugin = "qemu"\ndirectory = "servers"')


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


@pytest.mark.parametrize(
    ("spoil", "key", "words"),
    [
        (port_in_use, "api.listen[0]", "another program listens there"),
        (second_port_in_use, "api.listen[1]", "name another port"),
        (address_of_another_machine, "api.listen[0]", "not one of this machine"),
        (socket_in_use, "api.listen[0]", "name another path"),
        (socket_with_a_long_path, "api.listen[0]", "bytes"),
        (socket_without_a_path, "api.listen[0]", "0 bytes"),
        (port_that_is_none, "api.listen[0]", "no such port"),
        (socket_in_no_folder, "api.listen[0]", "is not a folder"),
        (state_is_a_file, "state.directory", "is not a folder"),
        (state_in_a_file, "state.directory", "is not a folder"),
        (database_in_a_file, "state.url", "is not a folder"),
        (database_is_something_else, "state.url", "not an SQLite database"),
        (database_is_a_folder, "state.url", "cannot be opened"),
        (database_of_a_later_bootvol, "state.url", "a later bootvol"),
        (no_postgresql, "state.url", "does not answer"),
        (spool_in_a_file, "imports.spool", "is not a folder"),
        (spool_is_a_file, "imports.spool", "is not a folder"),
        (volumes_in_a_file, "backends[0].directory", "is not a folder"),
        (volumes_is_a_file, "backends[0].directory", "is not a folder"),
        (exports_in_too_long_a_folder, "exports.directory", "leave room for sockets"),
        (exports_in_a_file, "exports.directory", "is not a folder"),
        (exports_at_another_machine, "exports.host", "nothing can listen"),
        (exports_without_certificates, "exports.credentials", "pki"),
        (hypervisor_without_program, "hypervisor.binary", "apt-get install qemu-system-x86"),
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
        assert each.line.endswith((".", "lvm.")) or "apt-get install" in each.line
    assert any(words in each.line for each in found), found
    assert not any("hidden-password" in each.line for each in found)


@pytest.mark.parametrize(
    ("old", "new", "more", "words"),
    [
        ('directory = "images"', 'directory = "elsewhere"', "", "there is no such folder"),
        (
            'directory = "volumes"',
            'directory = "volumes"\nmounted = true',
            "",
            "nothing is mounted",
        ),
        ("", "", "[imports]\nbuffers = 64\nbuffer_kib = 32768\nconcurrent = 64", "may take"),
        ("", "", '[imports]\nspool_gib = 100000.0\nspool = "images/.."', "GiB free"),
    ],
)
def test_a_warning(world: World, old: str, new: str, more: str, words: str) -> None:
    """The daemon starts all the same."""
    (found,) = examine(world.write(old, new, more))
    assert words in found.line
    assert not found.fatal


@pytest.mark.parametrize(
    ("index", "words"),
    [
        ("nonsense [", "the index is not valid"),
        ("[[images]]\nid = 'x'\nfile = 'x'\nsha512 = 'short'", "sha512"),
        ("[[images]]\nid = 'x'\nfile = 'none.raw'", "'none.raw', which is not in the folder"),
    ],
)
def test_an_index_of_images(world: World, index: str, words: str) -> None:
    (world.folder / "images" / "index.toml").write_text(index)
    (found,) = examine(world.write())
    assert words in found.line
    assert "\n" not in found.line
    assert not found.fatal


def test_a_user_without_roles(world: World) -> None:
    people = PEOPLE.replace('roles = { demo = ["admin"] }', "")
    (found,) = examine(world.write(STATIC, EMBEDDED_IDENTITY + people))
    assert "identity.users[0].roles: 'ann': the user has no role" in found.line
    assert not found.fatal


def test_the_ports_of_a_running_daemon_are_left_alone(world: World) -> None:
    taken = socket.create_server(("127.0.0.1", world.port))
    world.sockets.append(taken)
    lock = os.open(world.folder / "daemon.lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (found,) = examine(world.write())
    finally:
        os.close(lock)
    assert "another daemon is using" in found.line


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
        (lambda text: text.replace("bootvol.db", "bootvol.db?mode=ro"), "question mark"),
        (lambda text: text + SAME_FLAVORS, "the name 'x' is given twice"),
        (lambda text: text.replace('"bob"', '"bo b"', 1), "no space"),
        (lambda text: text.replace('"bob"', '"böb"', 1), "visible ASCII"),
    ],
)
def test_a_mistake_in_the_file(world: World, change: Callable[[str], str], words: str) -> None:
    """No machine is needed to see these, so every reader of the file refuses them."""
    file = world.write()
    file.write_text(change(file.read_text()))
    with pytest.raises(ConfigurationError) as refused:
        settings.load(file)
    for line in str(refused.value).splitlines():
        assert line.startswith(f"{file}: ")
    assert words in str(refused.value)


def test_a_check_of_a_plugin_is_optional(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from bootvol_plugins import file

    plain = attrs.evolve(file.PLUGIN, check=None)
    monkeypatch.setattr(file, "PLUGIN", plain)
    assert examine(volumes_is_a_file(world)) == []
