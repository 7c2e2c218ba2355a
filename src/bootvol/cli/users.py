"""The commands for users who log in at bootvol itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bootvol.cli.failures import NOT_FOUND, CommandFailed
from bootvol.cli.text import shown

if TYPE_CHECKING:
    from bootvol.settings import Settings


def commands(read: Callable[[Path], Settings], path: click.Path) -> click.Group:
    """Return the group of commands.

    :param read: reads a configuration file.
    :param path: the type of the option for the file.
    """

    @click.group()
    def user() -> None:
        """Users who log in at bootvol itself."""

    @user.command("show-cloud")
    @click.argument("name")
    @click.option("--config", "-c", type=path, default="twistd.conf", show_default=True)
    @click.option("--url", help="URL of the API for clients. Default: as configured.")
    def show_cloud(name: str, config: Path, url: str | None) -> None:
        """Print a clouds.yaml for a user, with a cloud for each of the user's projects.

        The file names no password: bootvol knows only its hash. Clients ask for the password, or
        read OS_PASSWORD.
        """
        settings = read(config)
        click.echo(_clouds(name, _projects(settings, name), settings, url), nl=False)

    return user


def _projects(settings: Settings, name: str) -> Sequence[str]:
    """Return the names of a user's projects.

    :raises CommandFailed: if the user cannot log in to a project.
    """
    from bootvol.interfaces import IdentityPlugin

    plugin = settings.identity.descriptor
    if not isinstance(plugin, IdentityPlugin) or plugin.log_ins is None:
        raise CommandFailed(
            f"{settings.file}: users log in elsewhere; only some identity plugins have users"
        )
    users = plugin.log_ins(settings.identity.options)
    if name not in users:
        raise CommandFailed(
            f"{settings.file}: there is no user {shown(name)} with a password", NOT_FOUND
        )
    projects = users[name]
    if not projects:
        raise CommandFailed(f"{settings.file}: the user {shown(name)} has no role in a project")
    return projects


def _clouds(name: str, projects: Sequence[str], settings: Settings, url: str | None) -> str:
    """Return the content of the file; texts in JSON are texts in YAML, too.

    :raises CommandFailed: if the URL for clients is not known.
    """
    from bootvol.endpoints import url_of

    own = (url_of(each) for each in settings.api.listen)
    root = url or settings.api.public_url or next(filter(None, own), None)
    if root is None:
        raise CommandFailed(f"{settings.file} states no URL for clients; give --url")
    lines = [
        "# ~/.config/openstack/clouds.yaml. Choose a cloud by OS_CLOUD or --os-cloud; the clients",
        "# ask for the password, or read OS_PASSWORD.",
        "clouds:",
    ]
    for project in projects:
        lines += [
            f"  {json.dumps(project)}:",
            "    auth:",
            f"      auth_url: {json.dumps(root.rstrip('/') + '/identity/v3')}",
            f"      username: {json.dumps(name)}",
            f"      project_name: {json.dumps(project)}",
            "      user_domain_name: Default",
            "      project_domain_name: Default",
            "    identity_api_version: 3",
            f"    region_name: {json.dumps(settings.availability_zone)}",
        ]
    return "\n".join(lines) + "\n"
