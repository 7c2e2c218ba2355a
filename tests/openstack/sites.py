"""Daemons for today's clients: with users and images of their own, or of a Keystone and a Glance.

The same tests run at both kinds of sites.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs
import pytest

from tests.commands import environment
from tests.daemons import OTHER_TENANT, TENANT
from tests.openstack.cloud import TABLE
from tests.openstack.identity import PASSWORD, Keystone
from tests.openstack.images import Glance, glance
from tests.people import PASSWORD_HASH, PEOPLE
from tests.processes import Process, process

#: The kinds of sites, for parameters of tests.
KINDS: Final = ("own", pytest.param("openstack", marks=pytest.mark.heavy))
#: The same for longer tests: `make test` runs the first kind, `make tempest` both.
LONG: Final = ("own", pytest.param("openstack", marks=(pytest.mark.heavy, pytest.mark.whole)))

#: bootvol's own user in Keystone, and its project.
_SERVICE: Final = "bootvol-of-clients"
#: The role of a service such as Nova.
_SERVICES: Final = "service"
#: The types of the Block Storage API in catalogs.
_TYPES: Final = ("block-storage", "volumev3")

#: Nova's user in a daemon with users of its own.
_NOVA: Final = f"""
[[identity.users]]
name = "nova"
password_hash = "{PASSWORD_HASH}"
roles = {{ demo = ["{_SERVICES}"] }}
"""


@attrs.frozen
class Site:
    """A daemon with users and images.

    Ann is an admin of the project ``demo``, and a member of ``other``, as Bob is.
    The user ``nova`` is a service in ``demo``. Ann's and Nova's password is the same at all sites.

    :ivar settings: the environment of Ann's clients.
    :ivar projects: the ids of the projects, by name.
    :ivar bring: makes an image for all projects, of a name and a content; returns the id.
    """

    daemon: Process
    settings: Mapping[str, str]
    projects: Mapping[str, str]
    bring: Callable[[str, bytes], str]


@contextmanager
def own_site(folder: Path, more: str = "", source: str = "") -> Iterator[Site]:
    """Run a daemon with users and images of its own, until the end of the block. Blocks.

    :param more: TOML after the basic configuration.
    :param source: TOML of a source for images of projects, in the folder ``own``.
    """

    def bring(name: str, content: bytes) -> str:
        (daemon.images / name).write_bytes(content)
        return name

    (folder / "own").mkdir()
    with process(folder, more + source, identity=PEOPLE + _NOVA) as daemon:
        settings = environment(daemon.url, folder, {})
        yield Site(daemon, settings, {"demo": TENANT, "other": OTHER_TENANT}, bring)


@contextmanager
def site_of(
    request: pytest.FixtureRequest, kind: str, folder: Path, more: str = "", source: str = ""
) -> Iterator[Site]:
    """Run a daemon of a kind, until the end of the block. Blocks.

    The catalog has room for one daemon at a time.

    :param more: TOML after the basic configuration.
    :param source: TOML of a source for images of projects; a cloud has Glance for them.
    """
    if kind == "own":
        with own_site(folder, more, source) as site:
            yield site
    else:
        cloud: SharedCloud = request.getfixturevalue("clients_cloud")
        with cloud.site(folder, more) as site:
            yield site


@attrs.frozen
class SharedCloud:
    """A Keystone with Ann, and a Glance, for many daemons, one after the other."""

    keystone: Keystone
    glance: Glance
    projects: Mapping[str, str]

    @contextmanager
    def site(self, folder: Path, more: str = "") -> Iterator[Site]:
        """Run a daemon for the cloud's users and images, until the end of the block. Blocks.

        The catalog lists the daemon meanwhile. All images are deleted at the end.

        :param more: TOML after the basic configuration.
        """
        access = {"user": _SERVICE, "password": PASSWORD, "keystone": self.keystone.url}
        tables = TABLE.format(endpoint=self.glance.url, **access)
        identity = TABLE.partition("[sources.keystone]")[2].format(**access)
        with process(
            folder, more + tables, identity=f'[identity]\nplugin = "keystone"{identity}'
        ) as daemon:
            url = f"{daemon.url}/volume/v3/%(project_id)s"
            listed = [self.keystone.endpoint(f"bootvol-{kind}", kind, url) for kind in _TYPES]
            try:
                own = {"OS_AUTH_URL": f"{self.keystone.url}/v3"}
                settings = environment(daemon.url, folder, own)
                yield Site(daemon, settings, self.projects, self._bring)
            finally:
                for service in listed:
                    self.keystone.call("DELETE", f"/services/{service}")
                self._delete_images()

    def _bring(self, name: str, content: bytes) -> str:
        token = self.keystone.token("admin", "admin")
        return self.glance.image(token, content, name=name, visibility="public")

    def _delete_images(self) -> None:
        token = self.keystone.token("admin", "admin")
        for image in self.glance.call("GET", "", token)["images"]:
            self.glance.call("DELETE", f"/{image['id']}", token)


@contextmanager
def shared_cloud(keystone: Keystone) -> Iterator[SharedCloud]:
    """Run a Glance, and make the users and the catalog, until the end of the block. Blocks."""
    projects = {name: keystone.project(name) for name in ("demo", "other")}
    keystone.user("ann", {projects["demo"]: ["admin"], projects["other"]: ["member"]})
    # The role admin removes images whose uploads have failed.
    keystone.user(_SERVICE, {keystone.project(_SERVICE): ["admin", _SERVICES]})
    keystone.user("bob", {projects["other"]: ["member"]})
    keystone.user("nova", {projects["demo"]: [_SERVICES]})
    with glance(keystone) as images:
        keystone.endpoint("glance", "image", images.url)
        yield SharedCloud(keystone, images, projects)
