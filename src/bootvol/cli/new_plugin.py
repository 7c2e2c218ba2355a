"""The command that starts a new plugin: writes a working backend under a new name."""

from __future__ import annotations

import re
import shutil
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bootvol.cli.failures import CommandFailed

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

#: The name of the plugin in the template.
_NAME = "shelf"


@click.command("new")
@click.argument("name")
@click.option(
    "--into",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to create. Default: bootvol-NAME.",
)
def new(name: str, into: Path | None) -> None:
    """Write a new backend plugin that passes the contract suite, as a start for your own.

    NAME is the plugin's name in configurations: small letters, digits and "_".
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,31}", name):
        raise CommandFailed(f"{name!r} is not a valid name: use lower-case letters, digits and '_'")
    folder = into or Path(f"bootvol-{name}")
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise CommandFailed(f"{folder} already exists") from None
    try:
        _write(files("bootvol") / "template", folder, name)
    except OSError as error:
        # Half a plugin would keep the next call from its work.
        shutil.rmtree(folder)
        raise CommandFailed(f"{folder}: {error.strerror}") from None
    click.echo(
        f"{folder}: a backend that passes the contract suite; README.md lists the next steps"
    )


def _write(template: Traversable, folder: Path, name: str) -> None:
    for each in template.iterdir():
        if each.name == "__pycache__":
            continue
        target = folder / each.name.replace(_NAME, name)
        if each.is_dir():
            target.mkdir()
            _write(each, target, name)
        else:
            target.write_text(_renamed(each.read_text(), name))


def _renamed(text: str, name: str) -> str:
    classes = "".join(part.capitalize() for part in name.split("_"))
    return text.replace(_NAME, name).replace(_NAME.capitalize(), classes)
