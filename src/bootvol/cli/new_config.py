"""The command that starts a new installation: writes a commented configuration with a token."""

from __future__ import annotations

import os
import secrets
from importlib.resources import files
from pathlib import Path

import click

from bootvol.cli.failures import CommandFailed

#: The token in the sample, which everybody knows.
_PUBLIC = '"demo-token"'


@click.command("init")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default=".")
def init(folder: Path) -> None:
    """Write a commented configuration, twistd.conf, with a random token to FOLDER.

    Every setting has its default. Only the current user can read the file. The command also makes
    the folder for images, var/images.
    """
    sample = (files("bootvol") / "twistd.conf").read_text()
    path = folder / "twistd.conf"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise CommandFailed(f"{path} already exists") from None
    try:
        with open(descriptor, "w") as file:
            file.write(sample.replace(_PUBLIC, f'"{secrets.token_urlsafe(32)}"'))
    except OSError as error:
        # Half a file would keep the next call from its work.
        path.unlink()
        raise CommandFailed(f"{path}: {error.strerror}") from None
    (folder / "var/images").mkdir(parents=True, exist_ok=True)
    click.echo(f"{path}: the token of tenant demo is under [[identity.tokens]]")
    click.echo(f"next: bootvol check-config --machine {path}; bootvol serve --config {path}")
