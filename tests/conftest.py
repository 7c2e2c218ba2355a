"""Fixtures that several kinds of tests share."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_twisted
from hypothesis import HealthCheck, settings
from sqlalchemy import make_url

from bootvol.clocks import use_steady_clock
from bootvol.store.database import Database
from bootvol.threads import Threads
from tests import ceph, guest, postgresql
from tests.crashes import pytest_configure, pytest_handlecrashitem, pytest_unconfigure
from tests.daemons import EMBEDDED, Running, reactor
from tests.openstack import identity, images
from tests.openstack.cloud import Cloud
from tests.openstack.sites import SharedCloud, shared_cloud

__all__ = ["pytest_configure", "pytest_handlecrashitem", "pytest_unconfigure"]

# A busy machine is slow, so no test of examples has a time limit.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

#: Fixtures that start services of other projects, or make a guest.
_HEAVY = {"lasting_cluster", "keystone", "cloud", "clients_cloud", "guest_image", "debian_disk"}

# A shell starts a command in the background with SIGINT ignored, and children inherit that. Some
# tests send SIGINT to their children.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The daemon's own process does this. These tests run their daemons in the process of pytest.
use_steady_clock(reactor)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the slowest tests first, followed by tests that must not run beside them; mark the heavy.

    Beside LVM's machine, tests of failing disks have given other results than alone.
    """
    first = ("test_lvm.py", "test_storage_faults.py")
    items.sort(key=lambda item: first.index(item.path.name) if item.path.name in first else 2)
    for item in items:
        if isinstance(item, pytest.Function) and _HEAVY.intersection(item.fixturenames):
            item.add_marker("heavy")


@pytest.fixture
def threads() -> Iterator[Threads]:
    """A small running pool of threads."""
    threads = Threads(reactor, "test", 2)
    threads.start()
    yield threads
    threads.stop()


@pytest_twisted.async_yield_fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    """A daemon on SQLite, in this process."""
    daemon = Running(tmp_path)
    yield daemon
    await daemon.stop()


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """A server for the whole run."""
    with postgresql.server() as url:
        yield url


@pytest.fixture
def new_postgresql(postgresql_server: str) -> Callable[[], str]:
    """Make an empty database on the server, and return its URL."""
    return lambda: postgresql.create_database(postgresql_server, f"test-{uuid4()}")


@pytest.fixture(params=["sqlite", "postgresql"])
def state(request: pytest.FixtureRequest) -> str:
    """A daemon's table ``[state]``, with an empty database of each kind in turn."""
    if request.param == "sqlite":
        return EMBEDDED
    url = request.getfixturevalue("new_postgresql")()
    Database(make_url(url).set(drivername="postgresql+psycopg"), reactor).upgrade()
    return f'url = "{url}"\ndirectory = "."'


@pytest.fixture(scope="session")
def lasting_cluster() -> Iterator[ceph.Cluster]:
    """A Ceph cluster for the whole run. Tests use :func:`ceph_cluster`."""
    with ceph.cluster() as cluster:
        yield cluster


@pytest.fixture
def ceph_cluster(lasting_cluster: ceph.Cluster) -> Iterator[ceph.Cluster]:
    """The run's cluster, without remains of earlier tests, even of failed ones."""
    yield lasting_cluster
    lasting_cluster.clear()


@pytest.fixture(scope="session")
def keystone() -> Iterator[identity.Keystone]:
    """A Keystone for the whole run. Each test makes projects and users of its own."""
    with identity.keystone() as service:
        yield service


@pytest.fixture(scope="session")
def cloud(keystone: identity.Keystone) -> Iterator[Cloud]:
    """The run's Keystone, and a Glance for the whole run."""
    with images.glance(keystone) as service:
        yield Cloud.of(keystone, service)


@pytest.fixture(scope="session")
def clients_cloud(keystone: identity.Keystone) -> Iterator[SharedCloud]:
    """The run's Keystone, and a Glance of the tests of clients, for the whole run."""
    with shared_cloud(keystone) as cloud:
        yield cloud


@pytest.fixture(scope="session")
def guest_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk whose guest counts its boots: see :mod:`tests.guest`.

    All tests share the disk, so they boot from copies.
    """
    image = tmp_path_factory.mktemp("guest") / "guest.raw"
    guest.make(image)
    return image


@pytest.fixture(scope="session")
def debian_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw disk with a file system of Debian packages: see :func:`guest.make_of_packages`.

    All tests share the disk, so they only read.
    """
    image = tmp_path_factory.mktemp("debian") / "debian.raw"
    guest.make_of_packages(image)
    return image
