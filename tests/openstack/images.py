"""A real Glance for tests, with SQLite and a real Keystone.

The images are files, or lie in a Ceph cluster.
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
    """A running Glance. All methods block.

    :param folder: folder for all files.
    :param keystone: checks the tokens.
    :param cluster: the cluster of the images; None stores the images in files.
    :ivar url: the root without a final slash.
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
        """Write the files and the database, and make Glance's user."""
        paste = Path(program("glance-api")).parents[1] / "etc/glance/glance-api-paste.ini"
        for name in ("store", "staging", "tasks", "locks"):
            (self._folder / name).mkdir()
        # One Keystone may have users of several Glances.
        name = self._folder.name
        kind, store = "file", f"filesystem_store_datadir = {self._folder}/store"
        if self._cluster is not None:
            conf = self._cluster.configuration
            kind, store = "rbd", _CEPH.format(conf=conf, pool=IMAGES)
            # Debian's bindings, as for bootvol itself: only these two.
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
        """Start or restart Glance."""
        self._served.start(f"{self.url}/versions")

    def kill(self) -> None:
        """End Glance at once. Idempotent."""
        self._served.kill()

    def image(self, token: str, content: bytes | None, **more: Any) -> str:
        """Make an image; return the id.

        :param token: a token of the owner.
        :param content: the data; None leaves the image queued.
        :param more: other properties; by default, the image is a bare raw disk, and private.
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

        :param token: a token of the owner.
        :param status: the project's answer: ``pending``, ``accepted`` or ``rejected``.
        :param with_: a token of the project.
        """
        self.call("POST", f"/{number}/members", token, {"member": project})
        self.call("PUT", f"/{number}/members/{project}", with_, {"status": status})

    def stored(self, number: str) -> Path:
        """Return the file of an image's data."""
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
    """Run a Glance until the end of the block. Blocks. See :class:`Glance` for the parameters."""
    folder = Path(tempfile.mkdtemp(prefix="bootvol-glance-"))
    made = Glance(folder, keystone, cluster)
    try:
        made.make()
        made.start()
        yield made
    finally:
        made.kill()
        shutil.rmtree(folder)
