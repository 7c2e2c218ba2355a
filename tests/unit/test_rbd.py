"""The rbd plugin without a cluster."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError
from pytest_twisted import ensureDeferred
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from bootvol.errors import BackendFailed, ConfigurationError, NoSpace
from bootvol.jsons import JsonObject
from bootvol.model import GIB
from bootvol_plugins.rbd.bindings import load
from bootvol_plugins.rbd.calls import Calls, DetachedThreads, Disconnected, GivenUp, failed
from bootvol_plugins.rbd.cluster import Pool
from bootvol_plugins.rbd.images import Images
from bootvol_plugins.rbd.objects import is_quickly_removed
from bootvol_plugins.rbd.options import RbdOptions
from bootvol_plugins.rbd.routes import monitors
from tests.daemons import pause, reactor
from tests.reactors import as_reactor
from tests.waiting import LIMIT, until


class Threaded(Clock):
    """A clock controlled by the test, with ``callFromThread`` of the real reactor."""

    def callFromThread(self, *call: Any) -> None:  # noqa: N802
        """Call a function in the reactor's thread."""
        reactor.callFromThread(*call)


def options(**more: Any) -> RbdOptions:
    """Return the options with the required settings."""
    return RbdOptions.model_validate({"pool": "volumes", "conf": "/etc/c.conf", **more})


def test_addresses_are_as_qemu_reads_them() -> None:
    assert options().address("v") == "rbd:volumes/v:id=bootvol:conf=/etc/c.conf"
    found = options(namespace="n", conf="/a:b@c\\d=e", keyring="/k", user="ann").address("v")
    assert found == r"rbd:volumes/n/v:id=ann:conf=/a\:b\@c\\d\=e:keyring=/k"
    found = options(conf=None, monitors=["[v2:10.0.0.1:3300]", "b:6789"]).address("v")
    assert found == r"rbd:volumes/v:id=bootvol:mon_host=[v2\:10.0.0.1\:3300];b\:6789"


@pytest.mark.parametrize(
    ("ours", "given", "expected"),
    [
        ("v2:10.0.0.11:0/1234", "10.0.0.11:0/1234", True),
        ("v2:10.0.0.11:0/1234", "v1:10.0.0.11:0/1234", True),
        ("10.0.0.11:0/1234", "10.0.0.11:0/1234", True),
        ("[v2:10.0.0.11:0/1234,v1:10.0.0.11:0/1234]", "10.0.0.11:0/1234", True),
        ("v2:[2001:db8::1]:0/1234", "[2001:db8::1]:0/1234", True),
        ("v2:10.0.0.11:0/1234", "0.0.0.11:0/1234", False),
        ("v2:10.0.0.11:0/1234", "10.0.0.11:0/123", False),
        ("v2:10.0.0.11:0/1234", "10.0.0.1:0/1234", False),
        ("[v2:10.0.0.11:0/1234,v1:10.0.0.11:0/1234]", "10.0.0.11:0/123", False),
        ("v2:[2001:db8::1]:0/1234", "[2001:db8::1]:0/12", False),
        ("v2:10.0.0.11:0/1234", "", False),
    ],
)
def test_an_address_that_is_a_part_of_ours_is_not_ours(
    ours: str, given: str, expected: bool
) -> None:
    nothing: Any = None
    assert Pool(nothing, nothing, nothing, "volumes", ours, "s").is_ours(given) is expected


@pytest.mark.parametrize(
    "wrong",
    [
        {"conf": None},
        {"monitors": ["a"]},
        {"conf": None, "monitors": ["a b"]},
        {"pool": "a/b"},
        {"pool": ""},
        {"namespace": "a@b"},
        {"user": "a:b"},
        {"user": "client.bootvol"},
        {"conf": None, "monitors": ["10.0.0.1:99999"]},
        {"conf": None, "monitors": ["[::1]:0"]},
        {"timeout": 0},
        {"timeout": 1.5},
    ],
)
def test_what_could_mean_something_else_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        options(**wrong)


def test_timeouts_are_always_set() -> None:
    said = options(timeout=7).client()
    for key in ("rados_osd_op_timeout", "rados_mon_op_timeout", "client_mount_timeout"):
        assert said[key] == "7"


def test_without_bindings_the_operator_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("rados", "rbd"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(ConfigurationError, match="Install Debian's python3-rbd"):
        load(str(tmp_path))
    # The bindings of another release look like this: Python cannot load the files.
    (tmp_path / "rados.so").write_bytes(b"nothing")
    (tmp_path / f"rados.{sys.implementation.cache_tag}-x86_64-linux-gnu.so").write_bytes(b"no")
    with pytest.raises(ConfigurationError, match="cannot be loaded"):
        load(str(tmp_path))
    assert "rados" not in sys.modules


def test_the_descriptor_loads_without_them_and_nothing_else_comes_in() -> None:
    code = """
import sys
from bootvol import plugins
from bootvol.interfaces import BackendPlugin
plugins.load(BackendPlugin, "rbd")
assert "rados" not in sys.modules
assert "/usr/lib/python3/dist-packages" not in sys.path
from bootvol_plugins.rbd.bindings import load
load()
assert "/usr/lib/python3/dist-packages" not in sys.path
assert sys.modules["rados"].__file__.startswith("/usr/lib/python3/dist-packages/")
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=LIMIT)


def test_errors_by_their_number() -> None:
    assert type(failed("x", errno.EDQUOT)) is NoSpace
    assert type(failed("x", errno.ENOSPC)) is NoSpace
    assert type(failed("x", errno.EIO)) is BackendFailed
    assert type(failed("x", errno.ESHUTDOWN)) is Disconnected


async def happened(event: Event) -> None:
    """Wait until a thread has set an event."""
    await until(event.is_set)


@ensureDeferred
async def test_a_call_that_does_not_return_is_given_up() -> None:
    clock = Threaded()
    goes_on, beaten, ends, undone = Event(), Event(), Event(), Event()

    def call(beat: Callable[..., int]) -> str:
        assert goes_on.wait(LIMIT)
        assert beat(1, 2) == 0
        beaten.set()
        assert ends.wait(LIMIT)
        return "opened"

    waiting = Deferred.fromCoroutine(
        Calls(as_reactor(clock), 5.0).run("Opening x failed", call, lambda _: undone.set())
    )
    clock.advance(4)
    goes_on.set()
    await happened(beaten)
    clock.advance(4)
    # The call has shown progress meanwhile.
    assert not waiting.called
    clock.advance(1)
    with pytest.raises(GivenUp, match="Opening x failed: the cluster does not answer"):
        await waiting
    ends.set()
    # A late result is undone.
    await happened(undone)


@ensureDeferred
async def test_calls_that_hang_do_not_take_all_threads() -> None:
    clock, ends = Threaded(), Event()
    calls = Calls(as_reactor(clock), 5.0)
    hanging = [
        Deferred.fromCoroutine(calls.run("x", lambda _: ends.wait(LIMIT))) for _ in range(512)
    ]
    clock.advance(5)
    for each in hanging:
        with pytest.raises(GivenUp):
            await each
    with pytest.raises(BackendFailed, match="512 calls of Ceph's library are under way"):
        await calls.run("x", lambda _: None)
    ends.set()

    async def done() -> bool:
        with suppress(BackendFailed):
            return await calls.run("x", lambda _: "done") == "done"
        return False

    await until(done)


@ensureDeferred
async def test_a_cancelled_call_has_ended() -> None:
    ends, undone = Event(), Event()
    results: list[object] = []
    waiting = Deferred.fromCoroutine(
        Calls(reactor, 60.0).run("x", lambda _: ends.wait(LIMIT), lambda _: undone.set())
    )
    waiting.addBoth(results.append)
    waiting.cancel()
    await pause(0.01)
    assert not results
    ends.set()
    await happened(undone)
    await waiting
    (failure,) = results
    assert isinstance(failure, Failure)
    assert failure.check(CancelledError)


@ensureDeferred
async def test_a_thread_whose_call_failed_makes_the_next_one() -> None:
    threads = DetachedThreads()
    for _ in range(3):
        failed, made = Event(), Event()

        def refuse(failed: Event = failed) -> None:
            failed.set()
            raise BackendFailed("refused")

        threads.start(refuse)
        await happened(failed)
        threads.start(made.set)
        await happened(made)


class Mapped:
    """An image with a valid object map.

    :param data: whether all objects exist; else none exists.
    :ivar asked: the ranges that were asked for, as pairs of offset and length.
    """

    def __init__(self, size: int, *, data: bool) -> None:
        self._size = size
        self._data = data
        self.asked: list[tuple[int, int]] = []

    def flags(self) -> int:
        """See :class:`bootvol_plugins.rbd.bindings.Image`."""
        return 0

    def size(self) -> int:
        """See :class:`bootvol_plugins.rbd.bindings.Image`."""
        return self._size

    def diff_iterate(
        self, offset: int, length: int, _since: None, take: Callable[..., None], **_: bool
    ) -> None:
        """See :class:`bootvol_plugins.rbd.bindings.Image`."""
        self.asked.append((offset, length))
        if self._data:
            take(offset, length, True)


@pytest.mark.parametrize("size", [1, 64 * GIB, 200 * GIB, 1024**5 + 1])
def test_the_data_of_a_large_image_is_counted_in_parts(size: int) -> None:
    """Each part shows progress, and the count covers the image and ends."""
    empty: Any = Mapped(size, data=False)
    beats: list[int] = []
    assert is_quickly_removed(empty, lambda: beats.append(len(empty.asked)))
    assert beats == list(range(1, len(empty.asked) + 1))
    assert len(beats) == min(-(-size // (64 * GIB)), 256)
    at = 0
    for offset, length in empty.asked:
        assert offset == at
        at += length
    assert at == size


def test_the_count_ends_once_the_data_is_too_much() -> None:
    full: Any = Mapped(1024 * GIB, data=True)
    assert not is_quickly_removed(full, lambda: None)
    assert len(full.asked) == 1


def test_only_a_volume_larger_than_its_pool_is_refused() -> None:
    """A nearly full pool refuses no size that could fit later."""
    pool: Any = SimpleNamespace(bindings=load(), space=lambda: (GIB, 1))
    images = Images(pool, "ceph")
    images.check_size("volume-1", GIB)
    with pytest.raises(NoSpace) as refused:
        images.check_size("volume-1", GIB + 1)
    assert refused.value.never_fits


@pytest.mark.parametrize(
    ("monitor", "found"),
    [
        (
            {
                "addr": "10.0.0.1:6790/0",
                "public_addrs": {
                    "addrvec": [
                        {"type": "v2", "addr": "10.0.0.1:3300", "nonce": 0},
                        {"type": "v1", "addr": "10.0.0.1:6789", "nonce": 0},
                    ]
                },
            },
            ("10.0.0.1", 6789),
        ),
        (
            {
                "addr": "[2001:db8::1]:3300/0",
                "public_addrs": {"addrvec": [{"type": "v2", "addr": "[2001:db8::1]:3300"}]},
            },
            ("2001:db8::1", 3300),
        ),
        # Ceph before its second protocol.
        ({"addr": "[2001:db8::1]:6789/0"}, ("2001:db8::1", 6789)),
        ({"addr": "10.0.0.1:6789/0", "public_addrs": {"addrvec": []}}, ("10.0.0.1", 6789)),
    ],
)
def test_hosts_find_the_monitors(monitor: JsonObject, found: tuple[str, int]) -> None:
    other = {"name": "b", "addr": "10.0.0.9:6789/0"}
    assert monitors({"mons": [monitor, other]}) == (found, ("10.0.0.9", 6789))


def test_a_monitor_without_an_address_is_told() -> None:
    with pytest.raises(BackendFailed, match="monitor b"):
        monitors({"mons": [{"name": "b", "addr": "-"}]})


def test_a_key_to_share_must_be_known() -> None:
    with pytest.raises(ValidationError, match="share_keyring needs keyring"):
        RbdOptions(pool="x", monitors=["x"], share_keyring=True)
