"""A small cloud for tests: Keystone, Glance, and people with images."""

from __future__ import annotations

from typing import Any, Final

import attrs
from twisted.internet.threads import deferToThread

from bootvol.model import Caller
from bootvol_plugins.glance.options import GlanceOptions
from tests.openstack.identity import PASSWORD, Keystone
from tests.openstack.images import Glance

#: Does off the reactor what blocks: gunicorn waits for clients to close their connections, and so
#: must not wait for the reactor while that waits for it.
blocking = deferToThread

#: bootvol's own user.
SERVICE: Final = "images-bootvol"
#: The projects of the others by their names, and their roles.
_PEOPLE: Final = {
    "ann": ("images", "member"),
    "eve": ("images", "reader"),
    "bob": ("other", "member"),
}

_TABLE: Final = """
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
    """What there is.

    ``ann`` may do with the images of her project what she likes, ``eve`` may look at them; ``bob``
    is of another project.

    :ivar projects: the ids of the projects, by who is in them.
    """

    keystone: Keystone
    glance: Glance
    projects: dict[str, str]

    @classmethod
    def of(cls, keystone: Keystone, glance: Glance) -> Cloud:
        """Let people in."""
        projects: dict[str, str] = {}
        ids: dict[str, str] = {}
        for user, (project, role) in _PEOPLE.items():
            projects[user] = ids[project] = ids.get(project) or keystone.project(project)
            keystone.user(f"images-{user}", {projects[user]: [role]})
        keystone.user(SERVICE, {keystone.project(SERVICE): ["admin"]})
        return cls(keystone, glance, projects)

    def token(self, user: str) -> str:
        """Log one of them in, or ``admin``."""
        if user == "admin":
            return self.keystone.token("admin", "admin")
        return self.keystone.token(f"images-{user}", _PEOPLE[user][0])

    def caller(self, user: str) -> Caller:
        """Return one of them as bootvol knows callers."""
        return Caller(user, self.projects.get(user, user), frozenset(), self.token(user))

    def options(self, keystone: dict[str, Any] | None = None, **more: Any) -> GlanceOptions:
        """Return what an operator says of a source that reads this Glance.

        :param keystone: what is said otherwise of its table of that name.
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
        """Return the TOML of such a source."""
        return _TABLE.format(
            endpoint=endpoint, keystone=self.keystone.url, user=SERVICE, password=PASSWORD
        )


def port_of(url: str) -> int:
    """Return the port in a service's root."""
    return int(url.rpartition(":")[2])
