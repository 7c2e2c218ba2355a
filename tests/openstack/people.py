"""Keystone's users for the tests of the identity ``keystone``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import attrs

from bootvol.options import BASE
from bootvol_plugins.keystone.identity import KeystoneIdentity
from bootvol_plugins.keystone.options import KeystoneOptions
from tests.daemons import reactor
from tests.openstack.identity import PASSWORD, Keystone

#: The right required by the documentation.
_ROLE: Final = "service"


@attrs.frozen
class People:
    """Two projects, ``demo`` and ``other``, with users, and bootvol's own user.

    ``ann`` is an admin in demo and a member in other, ``bob`` a member and ``eve`` a reader in
    demo; ``bootvol`` has a project of its own. In Keystone all their names have the same ending.

    :ivar projects: ids of the projects; ``users``: ids of the users.
    """

    keystone: Keystone
    ending: str
    projects: dict[str, str]
    users: dict[str, str]

    @classmethod
    def of(cls, keystone: Keystone) -> People:
        """Make the projects and users."""
        ending = f"-{uuid4().hex}"
        projects = {
            name: keystone.project(f"{name}{ending}") for name in ("demo", "other", "service")
        }
        roles = {
            "ann": {"demo": ["admin"], "other": ["member"]},
            "bob": {"demo": ["member"]},
            "eve": {"demo": ["reader"]},
            "bootvol": {"service": [_ROLE]},
        }
        users = {
            user: keystone.user(
                f"{user}{ending}", {projects[project]: names for project, names in given.items()}
            )
            for user, given in roles.items()
        }
        return cls(keystone, ending, projects, users)

    def token(self, user: str, project: str | None = "demo") -> str:
        """Log in a user for a project, or for none; return the token."""
        return self.keystone.token(
            f"{user}{self.ending}", None if project is None else f"{project}{self.ending}"
        )

    def options(self, **more: Any) -> dict[str, Any]:
        """Return the options of the plugin.

        :param more: replaces keys; None leaves them out.
        """
        found = {
            "url": self.keystone.url,
            "username": f"bootvol{self.ending}",
            "password": PASSWORD,
            "project": f"service{self.ending}",
            **more,
        }
        return {key: value for key, value in found.items() if value is not None}

    def table(self, **more: Any) -> str:
        """Return the options as TOML."""
        lines = [f"{key} = {json.dumps(value)}" for key, value in self.options(**more).items()]
        return "\n".join(['[identity]\nplugin = "keystone"', *lines])

    def identity(self, clock: Any = reactor, **more: Any) -> KeystoneIdentity:
        """Return the plugin as the daemon makes it."""
        return identity(self.options(**more), clock)


def identity(options: dict[str, Any], clock: Any = reactor) -> KeystoneIdentity:
    """Return the plugin made from its table, as the daemon does."""
    context: dict[str, Any] = {BASE: Path.cwd()}
    return KeystoneIdentity(KeystoneOptions.model_validate(options, context=context), clock)


class Later:
    """The reactor with a clock that the test can advance."""

    def __init__(self) -> None:
        self._passed = 0.0

    def advance(self, seconds: float) -> None:
        """Advance the clock."""
        self._passed += seconds

    def seconds(self) -> float:
        """Return the time in seconds."""
        now: float = reactor.seconds()
        return now + self._passed

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)
