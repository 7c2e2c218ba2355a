"""Ceph clusters for tests: one daemon of each kind on loopback, in a folder that is deleted later.

The tests need root, and the packages that ``make packages`` names. Without them a test fails with a
message. A cluster starts in a second or two, and takes up to 700 MiB of memory.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from bootvol_plugins.rbd.bindings import Bindings, load
from tests.servers import free_port
from tests.waiting import LIMIT, block_until

#: The pool of the tests, and the pool's user.
POOL: Final = "volumes"
USER: Final = "bootvol"
#: The pool of Glance's images.
IMAGES: Final = "images"
#: The rights that the plugin's documentation requires.
RIGHTS: Final = {
    "mon": "profile rbd",
    "osd": f"profile rbd pool={POOL}, profile rbd-read-only pool={IMAGES}",
}
#: Bytes of the OSD's disk. An OSD with less than 2 GiB gives up when it is full.
_DISK: Final = 4 * 1024**3
_PROGRAMS: Final = {"ceph-mon": "ceph-mon", "ceph-osd": "ceph-osd", "ceph-mgr": "ceph-mgr"}

_CONFIGURATION: Final = """\
[global]
fsid = {fsid}
mon_host = {monitor}
mon_initial_members = a
keyring = {folder}/keyring
run_dir = {folder}
crash_dir = {folder}
admin_socket =
pid_file =
log_file = {folder}/$name.log
log_to_stderr = false
err_to_stderr = false
mon_cluster_log_file = {folder}/cluster.log
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
ms_bind_ipv6 = false
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_allow_pool_delete = true
mon_warn_on_pool_no_redundancy = false

[mon]
mon_data = {folder}/mon
# The disk is the machine's, and may be well filled.
mon_data_avail_warn = 2
mon_data_avail_crit = 1
paxos_propose_interval = 0.05
paxos_min_wait = 0.01
mon_tick_interval = 1
mon_osd_down_out_interval = 600

[osd]
osd_data = {folder}/osd.0
osd_objectstore = bluestore
osd_memory_target = 939524096
# With one replica there is nobody to renew a lease that ended while the OSD was stopped.
osd_pool_default_read_lease_ratio = 1000
osd_mon_heartbeat_interval = 1
osd_op_num_shards = 2
osd_op_num_threads_per_shard = 1
osd_class_load_list = *
osd_class_default_list = *
# A client that was killed is taken for a living one so long (30).
osd_client_watch_timeout = 5
bluestore_block_size = {disk}
bluestore_block_create = true
# Opening and closing the disk waits so long, several times (250).
bdev_aio_poll_ms = 10
bluestore_cache_autotune = false
bluestore_cache_size = 134217728

[mgr]
mgr_data = {folder}/mgr.x
mgr_module_path = {folder}/modules
mgr_tick_period = 1
mgr_stats_period = 1
mgr_initial_modules =

[client]
# A restarted OSD is found within a second (5 and 10).
objecter_tick_interval = 0.5
objecter_timeout = 1

[client.{user}]
keyring = {folder}/user
"""


class Cluster:
    """A running cluster.  All methods block.

    :param disk: bytes of the OSD's disk, a sparse file.
    :ivar folder: the folder of all the cluster's files.
    :ivar configuration: the cluster's ceph.conf.
    :ivar keyring: the keyring of the tests' user.
    :ivar monitor: the monitor's address.
    :ivar bindings: the two modules of Ceph's Python bindings.
    """

    def __init__(self, folder: Path, disk: int) -> None:
        self.folder = folder
        self._disk = disk
        self.configuration = folder / "ceph.conf"
        self.keyring = folder / "user"
        self.monitor = f"[v2:127.0.0.1:{free_port()}]"
        self.bindings: Bindings = load()
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._admin: Any = None

    def start(self) -> None:
        """Make the cluster, and wait until an image can be written."""
        _check_programs()
        disk = self._format()
        self._run("mon.a", "ceph-mon", "-i", "a")
        self._admin = self.bindings.rados.Rados(
            conffile=str(self.configuration),
            conf={"client_mount_timeout": "30", "rbd_default_clone_format": "2"},
        )
        self._admin.connect(timeout=LIMIT)
        self.command("osd new", uuid=(self.folder / "osd-fsid").read_text())
        assert not disk.wait(LIMIT), (self.folder / "osd.0.log").read_text()
        self.start_osd()
        block_until(lambda: bool(self.command("osd stat")["num_up_osds"] == 1))
        # The manager counts free space. Its modules need more packages, and are left out.
        self._run("mgr.x", "ceph-mgr", "-i", "x", "--keyring", f"{self.folder}/mgr.x/keyring")
        self._make_pools(POOL, IMAGES)

    def _make_pools(self, *names: str) -> None:
        for name in names:
            self.command("osd pool create", pool=name, pg_num=8, pgp_num=8)
        block_until(lambda: self.available() > 0)
        self._admin.wait_for_latest_osdmap()
        for name in names:
            with self.pool(name=name) as pool:
                self.bindings.rbd.RBD().pool_init(pool, True)

    def _format(self) -> subprocess.Popen[bytes]:
        """Write all files; start and return the process that makes the OSD's disk."""
        folder = self.folder
        fsid, osd_fsid = str(uuid4()), str(uuid4())
        self.configuration.write_text(
            _CONFIGURATION.format(
                folder=folder, fsid=fsid, monitor=self.monitor, disk=self._disk, user=USER
            )
        )
        (folder / "osd-fsid").write_text(osd_fsid)
        every = {"mon": "allow *", "osd": "allow *", "mgr": "allow *"}
        admin = _entry("client.admin", every)
        user = _entry(f"client.{USER}", RIGHTS)
        osd = _entry(
            "osd.0", {"mon": "allow profile osd", "mgr": "allow profile osd", "osd": "allow *"}
        )
        manager = _entry("mgr.x", {"mon": "allow profile mgr", "osd": "allow *"})
        for name in ("mon", "osd.0", "mgr.x", "modules"):
            (folder / name).mkdir()
        (folder / "keyring").write_text(admin)
        self.keyring.write_text(user)
        self.keyring.chmod(0o600)
        (folder / "osd.0/keyring").write_text(osd)
        (folder / "mgr.x/keyring").write_text(manager)
        everyone = _entry("mon.", {"mon": "allow *"}) + admin + user + osd + manager
        (folder / "everyone").write_text(everyone)
        disk = self._popen(
            "ceph-osd", "--mkfs", "-i", "0", "--no-mon-config", "--osd-uuid", osd_fsid,
            "--keyring", f"{folder}/osd.0/keyring",
        )  # fmt: skip
        _run(
            "monmaptool", "--create", "--fsid", fsid, "--addv", "a", self.monitor,
            f"{folder}/monmap",
        )  # fmt: skip
        _run(
            "ceph-mon", "--mkfs", "-i", "a", "-c", str(self.configuration),
            "--monmap", f"{folder}/monmap", "--keyring", f"{folder}/everyone",
        )  # fmt: skip
        return disk

    def stop(self) -> None:
        """Kill all daemons."""
        try:
            if self._admin is not None:
                self._admin.shutdown()
        finally:
            for name in list(self._running):
                self.kill(name)

    def start_osd(self) -> None:
        """Start the OSD, also after a kill."""
        self._run("osd.0", "ceph-osd", "-i", "0", "--keyring", f"{self.folder}/osd.0/keyring")

    def available(self) -> int:
        """Return the free space of the pool in bytes, 0 before the first count."""
        pools = self.command("df", detail="detail")["pools"]
        found = {each["name"]: int(each["stats"]["max_avail"]) for each in pools}
        return found.get(POOL, 0)

    def kill(self, name: str) -> None:
        """Kill a daemon (``mon.a``, ``osd.0``, ``mgr.x``), even a stopped one."""
        process = self._running.pop(name)
        process.kill()
        process.wait()

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a daemon. SIGSTOP stops the daemon until SIGCONT."""
        self._running[name].send_signal(number)

    def command(self, prefix: str, **arguments: Any) -> Any:
        """Send a command to the monitor, and return its answer."""
        asked = json.dumps({"prefix": prefix, "format": "json", **arguments})
        code, answer, text = self._admin.mon_command(asked, b"", 30)
        assert not code, f"{prefix}: {text}"
        return json.loads(answer) if answer.strip() else None

    @contextmanager
    def pool(self, namespace: str = "", name: str = POOL) -> Iterator[Any]:
        """Open a pool as the administrator; yield the bindings' ioctx."""
        ioctx = self._admin.open_ioctx(name)
        try:
            ioctx.set_namespace(namespace)
            yield ioctx
        finally:
            ioctx.close()

    @contextmanager
    def image(self, name: str, namespace: str = "") -> Iterator[Any]:
        """Open an image, as the administrator."""
        with self.pool(namespace) as pool, self.bindings.rbd.Image(pool, name) as image:
            yield image

    def clone(
        self, name: str, snapshot: str, clone: str, namespace: str = "", form: int = 2
    ) -> None:
        """Make a clone of an image, as another client would.

        :param form: 1 for the form of old clients, which needs a protected snapshot.
        """
        setting = "rbd_default_clone_format"
        usual = self._admin.conf_get(setting)
        self._admin.conf_set(setting, str(form))
        try:
            with self.pool(namespace) as pool:
                self.bindings.rbd.RBD().clone(pool, name, snapshot, pool, clone)
        finally:
            self._admin.conf_set(setting, usual)

    def create(self, name: str, size: int, namespace: str = "") -> None:
        """Make an image, as another client would."""
        with self.pool(namespace) as pool:
            self.bindings.rbd.RBD().create(pool, name, size)

    def put_image(self, content: bytes, snapshot: str = "snap") -> str:
        """Write an image to the images pool, as Glance does; return its stated location."""
        name = str(uuid4())
        with self.pool(name=IMAGES) as pool:
            # Clones of the first format, common in Glance's clusters, need protected snapshots.
            self.bindings.rbd.RBD().create(pool, name, len(content), old_format=False)
            with self.bindings.rbd.Image(pool, name) as image:
                image.write(content, 0)
                image.create_snap(snapshot)
                image.protect_snap(snapshot)
        return f"rbd://{self._admin.get_fsid()}/{IMAGES}/{name}/{snapshot}"

    @contextmanager
    def snapshot(self, location: str) -> Iterator[Any]:
        """Open an image that :meth:`put_image` has written."""
        _, _, _, _, name, snapshot = location.split("/")
        rbd = self.bindings.rbd
        with self.pool(name=IMAGES) as pool, rbd.Image(pool, name, snapshot) as image:
            yield image

    def remove(self, name: str, namespace: str = "") -> None:
        """Remove an image, as another client would."""
        with self.pool(namespace) as pool:
            self.bindings.rbd.RBD().remove(pool, name)

    def add_namespace(self) -> str:
        """Make a namespace in the pool, and return its name."""
        name = f"test-{uuid4()}"
        with self.pool() as pool:
            self.bindings.rbd.RBD().namespace_create(pool, name)
        return name

    def images(self, namespace: str = "") -> list[str]:
        """Return the names of all images, sorted."""
        with self.pool(namespace) as pool:
            return sorted(self.bindings.rbd.RBD().list(pool))

    def left(self, namespace: str = "") -> list[str]:
        """Return the names of all objects and notes that an empty pool or namespace lacks.

        A note marks an image that is being made.
        """
        known = {"rbd_directory", "rbd_info", "rbd_children", "rbd_trash", "rbd_namespace"}
        with self.pool(namespace) as pool:
            notes = [key for key, _ in self.bindings.rbd.RBD().pool_metadata_list(pool)]
            return sorted({each.key for each in pool.list_objects()} - known) + notes

    def clear(self) -> None:
        """Make the pool anew if anything is left in the pool."""
        if self.left():
            sure = {"yes_i_really_really_mean_it": True}
            self.command("osd pool delete", pool=POOL, pool2=POOL, **sure)
            self._make_pools(POOL)

    def options(self, namespace: str | None = None, timeout: int = 30) -> dict[str, Any]:
        """Return the plugin's settings for this cluster."""
        found = {
            "pool": POOL,
            "namespace": namespace,
            "conf": str(self.configuration),
            "keyring": str(self.keyring),
            "timeout": timeout,
            "image_pools": [IMAGES],
        }
        return {key: value for key, value in found.items() if value is not None}

    def table(self, more: str = "", timeout: int = 30) -> str:
        """Return the TOML of a backend on this cluster.

        :param more: TOML to add to the backend's table.
        """
        lines = [
            f"{key} = {json.dumps(value)}" for key, value in self.options(None, timeout).items()
        ]
        return "\n".join(['[[backends]]\nname = "ceph"\nplugin = "rbd"', *lines, more])

    def _run(self, name: str, *command: str) -> None:
        self._running[name] = self._popen(*command, "-f")

    def _popen(self, *command: str) -> subprocess.Popen[bytes]:
        with (self.folder / "output").open("ab") as output:
            return subprocess.Popen(
                [*command, "-c", str(self.configuration)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )


@contextmanager
def cluster(disk: int = _DISK) -> Iterator[Cluster]:
    """Run a cluster until the block ends.  Blocks.

    :param disk: bytes of the OSD's disk.
    """
    folder = Path(tempfile.mkdtemp(prefix="bootvol-ceph-", dir="/tmp"))
    made = Cluster(folder, disk)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder)


def _entry(name: str, rights: dict[str, str]) -> str:
    """Return a user's entry in a keyring, with a new key.

    A key consists of its type (1 is AES), its time of creation (seconds, nanoseconds), its length,
    and the key itself.
    """
    key = base64.b64encode(struct.pack("<hiih", 1, int(time.time()), 0, 16) + os.urandom(16))
    caps = "".join(f'\tcaps {kind} = "{right}"\n' for kind, right in rights.items())
    return f"[{name}]\n\tkey = {key.decode()}\n{caps}"


def _check_programs() -> None:
    missing = [package for name, package in _PROGRAMS.items() if shutil.which(name) is None]
    if missing:
        raise AssertionError(f"This test needs: apt-get install {' '.join(missing)}")


def _run(*command: str) -> None:
    ended = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert not ended.returncode, f"{' '.join(command)}: {ended.stderr}"
