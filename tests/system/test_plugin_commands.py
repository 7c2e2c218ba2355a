"""Plugins as operators and authors see them: the installed plugins, and their kept promises."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bootvol.testing.backends import noise
from tests.ceph import Cluster
from tests.daemons import configuration
from tests.openstack.cloud import Cloud
from tests.processes import cli, process

FORGETFUL = """
from bootvol.interfaces import BackendPlugin
from bootvol.options import Options
from bootvol.testing.memory import MemoryBackend
from pydantic import Field


class Settings(Options):
    shelf: int = Field(default=3, description="Where it forgets things.")


class Forgetful(MemoryBackend):
    async def open_writer(self, volume):
        writer = await super().open_writer(volume)

        async def zero(offset, length):
            pass

        writer.zero = zero
        return writer


PLUGIN = BackendPlugin(
    Settings, lambda settings, context: Forgetful(context.name, context.reactor)
)
"""
# A source that resumes at the start despite its statement; an identity that reveals tokens.
CARELESS = """
from bootvol.interfaces import IdentityPlugin, SourcePlugin
from bootvol_plugins.directory import DirectoryOptions
from bootvol_plugins.directory_source import DirectorySource
from bootvol_plugins.static import StaticIdentity, StaticOptions


class Source(DirectorySource):
    async def open(self, image, offset=0, validator=None):
        stream = await super().open(image)
        if validator == stream.validator:
            stream.offset = offset
        return stream


class Identity(StaticIdentity):
    async def authenticate(self, token):
        if " " in token:
            raise KeyError(token)
        return await super().authenticate(token)


SOURCE = SourcePlugin(
    DirectoryOptions,
    lambda options, context: Source(context.name, options.directory, context.threads),
)
IDENTITY = IdentityPlugin(StaticOptions, lambda options, context: Identity(options))
"""
BACKEND = '[[backends]]\nname = "shelf"\nplugin = "forgetful"\n'
SOURCE = '[[sources]]\nname = "shelf"\nplugin = "careless"\ndirectory = "images"\n'
TOKEN = "token-of-ann-1"
IDENTITY = f'[[identity.tokens]]\ntoken = "{TOKEN}"\ntenant = "one"\nuser = "ann"\n'
IMAGE = noise(1024 * 1024 + 777)


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """The environment with wrong plugins and one that cannot be loaded."""
    folder = tmp_path / "installed"
    about = folder / "forgetful-1.5.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: forgetful\nVersion: 1.5\n")
    (about / "entry_points.txt").write_text(
        "[bootvol.backends]\nforgetful = forgetful:PLUGIN\nlost = nowhere_to_be_found:PLUGIN\n"
        "[bootvol.sources]\ncareless = careless:SOURCE\n"
        "[bootvol.identities]\ncareless = careless:IDENTITY\n"
    )
    (folder / "forgetful.py").write_text(FORGETFUL)
    (folder / "careless.py").write_text(CARELESS)
    return {"PYTHONPATH": str(folder)}


def test_plugins_are_listed(installed: dict[str, str]) -> None:
    listed = json.loads(cli("plugin", "list", "--json", env=installed).stdout)
    found = {(each["kind"], each["name"]): each for each in listed}
    assert found["source", "http"]["distribution"] == "bootvol"
    assert found["backend", "file"]["error"] is None
    assert found["backend", "forgetful"] == {
        "kind": "backend",
        "name": "forgetful",
        "distribution": "forgetful",
        "version": "1.5",
        "error": None,
        "settings": [
            {
                "key": "shelf",
                "type": "int",
                "required": False,
                "default": "3",
                "meaning": "Where it forgets things.",
            }
        ],
    }
    assert "nowhere_to_be_found" in found["backend", "lost"]["error"]
    shown = cli("plugin", "list", env=installed).stdout
    assert "backend forgetful (forgetful 1.5)" in shown
    assert "  shelf (int, default 3): Where it forgets things." in shown
    assert "  does not load: plugin 'lost' cannot be imported" in shown
    assert "  pool (str | None, default None): A thin pool in the group" in shown
    for each in listed:
        if each["distribution"] == "bootvol":
            assert all(setting["meaning"] for setting in each["settings"]), each["name"]


def test_a_right_backend_is_checked_beside_the_daemon(tmp_path: Path) -> None:
    with process(tmp_path) as daemon:
        assert daemon.cli("volume", "create", "--size", "1", "--wait").returncode == 0
        before = {each.name: each.stat() for each in daemon.files()}
        checked = cli("plugin", "check", "local", "--config", str(daemon.config))
        assert checked.returncode == 0, checked.stdout + checked.stderr
        assert "holds        takes writes at once\n" in checked.stdout
        assert "FAILS" not in checked.stdout
        assert "backend 'local' keeps the contract" in checked.stdout
        assert {each.name for each in daemon.files()} == set(before)
        for name, stat in before.items():
            assert (daemon.volumes / name).stat().st_mtime_ns == stat.st_mtime_ns


def test_a_cluster_is_checked_and_left_as_it_was(tmp_path: Path, ceph_cluster: Cluster) -> None:
    config = tmp_path / "x.conf"
    config.write_text(configuration(1, first=ceph_cluster.table("patience = 3")))
    before = ceph_cluster.images()
    checked = cli("plugin", "check", "ceph", "--config", str(config))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "FAILS" not in checked.stdout
    assert ceph_cluster.images() == before


def test_a_broken_backend_fails_by_the_promise(tmp_path: Path, installed: dict[str, str]) -> None:
    config = tmp_path / "x.conf"
    config.write_text(configuration(1, BACKEND))
    checked = cli("plugin", "check", "shelf", "--config", str(config), env=installed)
    assert checked.returncode == 1
    assert "FAILS        zeroes over data\n" in checked.stdout
    assert "holds        takes writes at once\n" in checked.stdout
    assert "backend 'shelf' breaks the contract" in checked.stderr


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration with a careless plugin, and with one name for two tables."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "disk.raw").write_bytes(IMAGE)
    (tmp_path / "images" / "small.raw").write_bytes(b"x")
    path = tmp_path / "x.conf"
    path.write_text(configuration(1, BACKEND + SOURCE, identity=IDENTITY))
    return path


def test_a_right_source_is_checked_by_an_image(config: Path, installed: dict[str, str]) -> None:
    check = ("plugin", "check", "images", "--config", str(config))
    checked = cli(*check, "--image", "disk.raw", env=installed)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "holds        goes on where it is asked to\n" in checked.stdout
    (left,) = [line for line in checked.stdout.splitlines() if "not checked" in line]
    assert "the references of the source are not always URLs" in left
    assert "source 'images' keeps the contract" in checked.stdout
    for arguments, said in (
        ((), "--image REF"),
        (("--image", "nope"), "image 'nope' cannot be read: Image nope could not be found"),
        (("--image", "small.raw"), "image 'small.raw' must be of 1 MiB to 64 MiB"),
    ):
        refused = cli(*check, *arguments, env=installed)
        assert refused.returncode == 1
        assert said in refused.stdout + refused.stderr
        assert "FAILS" not in refused.stdout


def test_glance_is_checked_with_the_callers_token(tmp_path: Path, cloud: Cloud) -> None:
    token = str(cloud.caller("ann").token)
    image = cloud.glance.image(token, IMAGE)
    config = tmp_path / "x.conf"
    config.write_text(configuration(1, cloud.table(cloud.glance.url)))
    check = ("plugin", "check", "glance", "--image", image, "--config", str(config))
    checked = cli(*check, env={"BOOTVOL_TOKEN": token})
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "holds        states the right digest if any\n" in checked.stdout


def test_a_broken_source_fails_by_the_promise(config: Path, installed: dict[str, str]) -> None:
    check = ("plugin", "check", "shelf", "--image", "disk.raw", "--config", str(config))
    either = cli(*check, env=installed)
    assert either.returncode == 1
    assert "'shelf' is backend and source: choose one with --kind" in either.stderr
    checked = cli(*check, "--kind", "source", env=installed)
    assert checked.returncode == 1
    assert "FAILS        goes on where it is asked to\n" in checked.stdout
    assert "holds        opens what was stored\n" in checked.stdout
    assert "source 'shelf' breaks the contract" in checked.stderr


def test_the_identity_is_checked_by_a_token(config: Path, installed: dict[str, str]) -> None:
    check = ("plugin", "check", "identity", "--config", str(config))
    checked = cli(*check, env=installed | {"BOOTVOL_TOKEN": TOKEN})
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "holds        knows nobody else\n" in checked.stdout
    assert "not checked  tells tenants apart" in checked.stdout
    for token, said in (("", "to a valid token"), ("wrong", "is not accepted")):
        refused = cli(*check, env=installed | {"BOOTVOL_TOKEN": token})
        assert refused.returncode == 1
        assert said in refused.stdout + refused.stderr


def test_a_broken_identity_fails_by_the_promise(config: Path, installed: dict[str, str]) -> None:
    config.write_text(
        configuration(1, BACKEND + SOURCE, identity=f'[identity]\nplugin = "careless"\n{IDENTITY}')
    )
    check = ("plugin", "check", "identity", "--config", str(config))
    checked = cli(*check, env=installed | {"BOOTVOL_TOKEN": TOKEN})
    assert checked.returncode == 1
    assert "FAILS        knows nobody else\n" in checked.stdout
    assert "KeyError" in checked.stdout
    assert "holds        knows its own\n" in checked.stdout
    assert "identity 'identity' breaks the contract" in checked.stderr
    assert TOKEN[:-1] not in checked.stdout + checked.stderr


def test_what_cannot_be_checked(tmp_path: Path) -> None:
    config = tmp_path / "x.conf"
    config.write_text(configuration(1))
    unknown = cli("plugin", "check", "zip", "--config", str(config))
    assert unknown.returncode == 1
    assert "has no backend or source or identity 'zip'; it has: backend local;" in unknown.stderr
    other = cli("plugin", "check", "images", "--kind", "backend", "--config", str(config))
    assert other.returncode == 1
    assert "has no backend 'images'; it has: backend local\n" in other.stderr
    # Without the packages of the extra.
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['pytest_twisted'] = None\n")
    env = {"PYTHONPATH": str(tmp_path)}
    bare = cli("plugin", "check", "local", "--config", str(config), env=env)
    assert bare.returncode == 1
    assert "pip install 'bootvol[testing]'" in bare.stderr
    assert "Traceback" not in bare.stderr
