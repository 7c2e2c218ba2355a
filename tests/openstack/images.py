"""A real Glance for tests, with SQLite: it asks a real Keystone who is who.

Its images are files, or lie in a cluster of Ceph.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.ceph import IMAGES, Cluster
from tests.openstack import Served, program, run
from tests.openstack.identity import PASSWORD, Keystone
from tests.servers import free_port
from tests.waiting import LIMIT

_CONFIGURATION: Final = """\
[DEFAULT]
log_file = {folder}/glance.log
enabled_backends = images:{kind}
show_image_direct_url = true
node_staging_uri = file://{folder}/staging
[glance_store]
default_backend = images
[images]
{store}
[os_glance_staging_store]
filesystem_store_datadir = {folder}/staging
[os_glance_tasks_store]
filesystem_store_datadir = {folder}/tasks
[database]
connection = sqlite:///{folder}/glance.db
[paste_deploy]
config_file = {paste}
flavor = keystone
[keystone_authtoken]
www_authenticate_uri = {keystone}/v3
auth_url = {keystone}/v3
auth_type = password
username = {user}
password = {password}
project_name = {user}
user_domain_id = default
project_domain_id = default
service_token_roles_required = true
# So that a token that has been revoked is known to be.
token_cache_time = -1
[oslo_policy]
enforce_scope = true
enforce_new_defaults = true
[oslo_concurrency]
lock_path = {folder}/locks
"""

_CEPH: Final = """\
rbd_store_ceph_conf = {conf}
rbd_store_user = admin
rbd_store_pool = {pool}
"""


class Glance:
    """A Glance that runs.  All methods block.

    :param folder: everything of it.
    :param keystone: says whom a token speaks for.
    :param cluster: where its images lie; in files without one.
    :ivar url: its root, without a slash at the end.
    """

    def __init__(self, folder: Path, keystone: Keystone, cluster: Cluster | None) -> None:
        self._folder = folder
        self._keystone = keystone
        self._cluster = cluster
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._file = folder / "glance-api.conf"
        env = {"OS_GLANCE_CONFIG_DIR": str(folder), "OS_GLANCE_CONFIG_FILES": self._file.name}
        if cluster is not None:
            env["PYTHONPATH"] = str(folder / "bindings")
        application = "glance.wsgi.api:application"
        self._served = Served(application, port, folder, env, threads=4)

    def make(self) -> None:
        """Write its files and its database, and make its user."""
        paste = Path(program("glance-api")).parents[1] / "etc/glance/glance-api-paste.ini"
        for name in ("store", "staging", "tasks", "locks"):
            (self._folder / name).mkdir()
        # There may be several that one Keystone knows.
        name = self._folder.name
        kind, store = "file", f"filesystem_store_datadir = {self._folder}/store"
        if self._cluster is not None:
            conf = self._cluster.configuration
            kind, store = "rbd", _CEPH.format(conf=conf, pool=IMAGES)
            # Debian's, as for bootvol itself: the two alone.
            (self._folder / "bindings").mkdir()
            for module in (self._cluster.bindings.rados, self._cluster.bindings.rbd):
                file = Path(module.__file__)
                (self._folder / "bindings" / file.name).symlink_to(file)
        self._file.write_text(
            _CONFIGURATION.format(
                folder=self._folder,
                paste=paste,
                keystone=self._keystone.url,
                user=name,
                password=PASSWORD,
                kind=kind,
                store=store,
            )
        )
        self._keystone.user(name, {self._keystone.project(name): ["admin"]})
        run("glance-manage", "--config-file", str(self._file), "db_sync")

    def start(self) -> None:
        """Start it, or start it again."""
        self._served.start(f"{self.url}/versions")

    def kill(self) -> None:
        """End it at once.  Idempotent."""
        self._served.kill()

    def image(self, token: str, content: bytes | None, **more: Any) -> str:
        """Make an image; return its id.

        :param token: its owner's.
        :param content: its data; None leaves it queued.
        :param more: what else is said of it; without that it is a bare raw disk, and private.
        """
        wanted = {
            "name": "disk",
            "disk_format": "raw",
            "container_format": "bare",
            "visibility": "private",
            **more,
        }
        number: str = self.call("POST", "", token, wanted)["id"]
        if content is not None:
            self.send("PUT", f"/{number}/file", token, content, "application/octet-stream")
        return number

    def share(self, number: str, token: str, project: str, status: str, with_: str) -> None:
        """Share an image with a project.

        :param token: its owner's.
        :param status: what that project makes of it: ``pending``, ``accepted`` or ``rejected``.
        :param with_: a token of that project.
        """
        self.call("POST", f"/{number}/members", token, {"member": project})
        self.call("PUT", f"/{number}/members/{project}", with_, {"status": status})

    def stored(self, number: str) -> Path:
        """Return the file that an image's data lies in."""
        return self._folder / "store" / number

    def call(self, method: str, path: str, token: str, body: Any = None) -> Any:
        """Send a request below ``/v2/images``; return the JSON of the answer, or None."""
        content = self.send(
            method, path, token, None if body is None else json.dumps(body).encode()
        )
        return json.loads(content) if content else None

    def send(
        self,
        method: str,
        path: str,
        token: str,
        body: bytes | None = None,
        kind: str = "application/json",
    ) -> bytes:
        """Send a request below ``/v2/images``; return the body of the answer."""
        request = urllib.request.Request(
            f"{self.url}/v2/images{path}",
            body,
            {"Content-Type": kind, "X-Auth-Token": token},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=LIMIT) as answer:
            content: bytes = answer.read()
            return content


@contextmanager
def glance(keystone: Keystone, cluster: Cluster | None = None) -> Iterator[Glance]:
    """Run a Glance until the block ends; the parameters are :class:`Glance`'s.  Blocks."""
    folder = Path(tempfile.mkdtemp(prefix="bootvol-glance-"))
    made = Glance(folder, keystone, cluster)
    try:
        made.make()
        made.start()
        yield made
    finally:
        made.kill()
        shutil.rmtree(folder)
