"""Every first-party source passes the same suite."""

import os
from collections.abc import Iterator
from hashlib import sha512
from pathlib import Path

import pytest
import pytest_twisted
from twisted.web.static import File

from bootvol.clocks import sleep
from bootvol.interfaces import PluginContext
from bootvol.jail import Jail
from bootvol.model import Caller
from bootvol.testing.backends import noise
from bootvol.testing.image_records import StoreSubject
from bootvol.testing.image_stores import make_image_store_tests
from bootvol.testing.image_takers import ImageTakerContract, TakerSubject
from bootvol.testing.sources import ImageSourceContract, Subject, make_image_source_tests
from bootvol_plugins.directory_source import DirectorySource
from bootvol_plugins.directory_store import WritableDirectory
from bootvol_plugins.glance.source import make
from bootvol_plugins.http.options import HttpOptions
from bootvol_plugins.http.source import HttpSource
from tests.openstack.cloud import Cloud
from tests.servers import Server, serve

MIB = 1024 * 1024
CONTENT = noise(3 * 1024 * 1024 + 777)


def _directory(context: PluginContext, folder: Path) -> Subject:
    (folder / "disk.raw").write_bytes(CONTENT)
    (folder / ".hidden").write_bytes(CONTENT)
    (folder / "another.raw").write_bytes(b"x")
    return Subject(DirectorySource(context.name, folder, context.threads), ("disk.raw", CONTENT))


def _indexed(context: PluginContext, folder: Path) -> Subject:
    (folder / "disk.raw").write_bytes(CONTENT)
    (folder / "index.toml").write_text(
        '[[images]]\nid = "4"\nfile = "disk.raw"\nmin_disk = 2\n'
        f'sha512 = "{sha512(CONTENT).hexdigest()}"\n'
    )
    return Subject(DirectorySource(context.name, folder, context.threads), ("4", CONTENT))


def _with_holes(context: PluginContext, folder: Path) -> Subject:
    """Return a file with holes: one is preallocated, and one is at the end."""
    mib = 1024 * 1024
    content = bytearray(12 * mib + 777)
    with (folder / "disk.raw").open("w+b") as file:
        for place, length in ((0, mib + 5), (5 * mib + 9, 3), (8 * mib, mib)):
            content[place : place + length] = noise(length)
            file.seek(place)
            file.write(noise(length))
        file.flush()
        os.posix_fallocate(file.fileno(), 2 * mib, mib)
        file.truncate(len(content))
    source = DirectorySource(context.name, folder, context.threads)
    return Subject(source, ("disk.raw", bytes(content)))


def _writable(context: PluginContext, folder: Path) -> StoreSubject:
    (folder / "disk.raw").write_bytes(CONTENT)
    store, quota = WritableDirectory(context, folder, 8 * MIB), 8 * MIB
    return StoreSubject(store, ("disk.raw", CONTENT), store=store, quota_bytes=quota)


TestWritableDirectory = make_image_store_tests(_writable)
TestDirectory = make_image_source_tests(_directory)
TestDirectoryWithHoles = make_image_source_tests(_with_holes)
TestDirectoryWithIndex = make_image_source_tests(_indexed)


class TestHttp(ImageSourceContract):
    """The source with a real server that states the length."""

    @pytest.fixture
    def server(self, tmp_path: Path) -> Iterator[Server]:
        (tmp_path / "disk.raw").write_bytes(CONTENT)
        with serve(File(str(tmp_path))) as server:
            yield server

    @pytest.fixture
    def subject(self, context: PluginContext, server: Server) -> Subject:
        options = HttpOptions(allow=[server.url], networks=["127.0.0.0/8", "::1/128"])
        source = HttpSource(context.name, options, context.reactor, context.threads, Jail())
        return Subject(source, (f"{server.url}disk.raw", CONTENT), lists=False)


class TestGlance(ImageSourceContract, ImageTakerContract):
    """The source with a real Glance."""

    @pytest.fixture
    def takes(self, context: PluginContext, cloud: Cloud) -> Iterator[TakerSubject]:
        source = make(context.name, cloud.options(timeout=120, stall=120), context.reactor)
        unknown = Caller("nobody", "nowhere", frozenset(), "0" * 32)
        yield TakerSubject(taker=source, taking=cloud.caller("ann"), unknown=unknown)
        pytest_twisted.blockon(sleep(context.reactor, 0.01))

    @pytest.fixture
    def subject(self, context: PluginContext, cloud: Cloud) -> Iterator[Subject]:
        caller = cloud.caller("ann")
        image = cloud.glance.image(str(caller.token), CONTENT)
        source = make(context.name, cloud.options(), context.reactor)
        yield Subject(source, (image, CONTENT), caller=caller)
        # End the connections before any blocking call: gunicorn waits for their end.
        pytest_twisted.blockon(sleep(context.reactor, 0.01))
