"""A small cloud for tests: Keystone, Glance, and users with images."""

from __future__ import annotations

from typing import Any, Final

import attrs
from twisted.internet.threads import deferToThread

from bootvol.model import Caller
from bootvol_plugins.glance.options import GlanceOptions
from tests.openstack.identity import PASSWORD, Keystone
from tests.openstack.images import Glance

#: Runs blocking calls outside the reactor: gunicorn waits until clients close their connections, so
#: the reactor must not wait for gunicorn.
blocking = deferToThread

#: bootvol's own user.
SERVICE: Final = "images-bootvol"
#: The projects of the other users by name, and the roles there.
_PEOPLE: Final = {
    "ann": ("images", "member"),
    "eve": ("images", "reader"),
    "bob": ("images-other", "member"),
}

#: The source of a daemon that reads images from Glance as its own user of Keystone.
TABLE: Final = """
[[sources]]
name = "glance"
plugin = "glance"
endpoints = ["{endpoint}"]

[sources.keystone]
url = "{keystone}"
username = "{user}"
password = "{password}"
project = "{user}"
"""


@attrs.frozen
class Cloud:
    """A Keystone and a Glance with users.

    ``ann`` has all rights on the images of her project, ``eve`` may read them; ``bob`` belongs to
    another project.

    :ivar projects: ids of the projects, by user.
    """

    keystone: Keystone
    glance: Glance
    projects: dict[str, str]

    @classmethod
    def of(cls, keystone: Keystone, glance: Glance) -> Cloud:
        """Make the users."""
        projects: dict[str, str] = {}
        ids: dict[str, str] = {}
        for user, (project, role) in _PEOPLE.items():
            projects[user] = ids[project] = ids.get(project) or keystone.project(project)
            keystone.user(f"images-{user}", {projects[user]: [role]})
        keystone.user(SERVICE, {keystone.project(SERVICE): ["admin"]})
        return cls(keystone, glance, projects)

    def token(self, user: str) -> str:
        """Log in a user, or ``admin``; return the token."""
        if user == "admin":
            return self.keystone.token("admin", "admin")
        return self.keystone.token(f"images-{user}", _PEOPLE[user][0])

    def caller(self, user: str) -> Caller:
        """Return a user as bootvol's caller."""
        return Caller(user, self.projects.get(user, user), frozenset(), self.token(user))

    def options(self, keystone: dict[str, Any] | None = None, **more: Any) -> GlanceOptions:
        """Return the operator's options of a source with this Glance.

        :param keystone: replaces options in the table ``keystone``.
        """
        access = {
            "url": self.keystone.url,
            "username": SERVICE,
            "password": PASSWORD,
            "project": SERVICE,
            **(keystone or {}),
        }
        return GlanceOptions.model_validate(
            {"endpoints": [self.glance.url], "keystone": access, **more}
        )

    def table(self, endpoint: str) -> str:
        """Return the TOML of the source."""
        return TABLE.format(
            endpoint=endpoint, keystone=self.keystone.url, user=SERVICE, password=PASSWORD
        )


def port_of(url: str) -> int:
    """Return the port in the URL of a service's root."""
    return int(url.rpartition(":")[2])
