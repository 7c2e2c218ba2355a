"""The commands. Each is a few lines that use the client or parts of the daemon."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bootvol.cli import boot as machine
from bootvol.cli import (
    images,
    limits,
    new_config,
    new_plugin,
    plugins,
    reservation,
    show,
    signals,
    snapshots,
    uploads,
    users,
    volume_types,
    waiting,
)
from bootvol.cli.client import Client, segment
from bootvol.cli.failures import NOT_FOUND, CommandFailed
from bootvol.cli.login import ENDPOINT, access
from bootvol.cli.shapes import VOLUME
from bootvol.jsons import JsonObject

if TYPE_CHECKING:
    from bootvol.settings import Settings

_CONFIG = click.Path(dir_okay=False, path_type=Path)
#: The largest number of seconds that an option takes.
_LONGEST = 1e9


def _number(_context: click.Context, option: click.Parameter, value: float | None) -> float | None:
    """Refuse ``nan``, which every range accepts."""
    if value is not None and math.isnan(value):
        raise click.BadParameter("nan is not a number.", param=option)
    return value


@click.group()
@click.version_option(package_name="bootvol")
@click.option(
    "--endpoint",
    envvar="BOOTVOL_ENDPOINT",
    default="",
    show_envvar=True,
    help=f"Base URI of the API, with the tenant. Default: from the catalog, or {ENDPOINT}.",
)
@click.option("--token", envvar="BOOTVOL_TOKEN", default="", show_envvar=True, help="Auth token.")
@click.pass_context
def bootvol(context: click.Context, endpoint: str, token: str) -> None:
    """Turn operating-system images into persistent, bootable block volumes.

    Without a token, bootvol logs in as other clients of OpenStack do: by OS_AUTH_URL, OS_USERNAME,
    OS_PASSWORD, OS_PROJECT_NAME and so on.
    """
    context.obj = Client(lambda: access(endpoint, token, os.environ))


# --- commands of the operator --------------------------------------------------------------------


@bootvol.command()
@click.option("--config", "-c", type=_CONFIG, default="twistd.conf", show_default=True)
def serve(config: Path) -> None:
    """Run the daemon in the foreground, as `twistd --nodaemon bootvol` does."""
    import sys

    from twisted.scripts.twistd import run

    sys.argv = ["twistd", "--nodaemon", "--pidfile=", "bootvol", "--config", str(config)]
    run()


@bootvol.command("check-config")
@click.argument("file", type=_CONFIG)
@click.option("--machine", "on_machine", is_flag=True, help="Check this machine as well.")
def check_config(file: Path, on_machine: bool) -> None:
    """Check a configuration file: print each mistake with its remedy, or ok.

    With --machine the checks that the start of the daemon makes run as well: ports, folders, files,
    programs, devices, the database.  Run the command on the daemon's machine and as the daemon's
    user.  The command changes nothing.
    """
    config = _settings(file)
    if on_machine:
        from bootvol import machine, reactors

        found = machine.examine(config, reactors.installed())
        for each in found:
            show.tell(each.line)
        if any(each.fatal for each in found):
            raise CommandFailed(f"{file}: the daemon would not start on this machine")
    show.line(f"{file}: ok")


bootvol.add_command(new_config.init)


@bootvol.group()
def db() -> None:
    """Maintain the database."""


@db.command()
@click.option("--config", "-c", type=_CONFIG, default="twistd.conf", show_default=True)
def upgrade(config: Path) -> None:
    """Upgrade the database's schema to this version. Stop all daemons of the database before."""
    from bootvol import locks, reactors
    from bootvol.errors import ConfigurationError
    from bootvol.store.database import Database

    try:
        database = Database(_settings(config).database, reactors.installed())
        if database.is_sqlite:
            for mistake in locks.check_database(Path(_settings(config).database.database or "")):
                raise ConfigurationError(str(mistake))
        database.upgrade()
    except ConfigurationError as error:
        raise CommandFailed(str(error)) from None
    click.echo("The database is up to date.")


@db.command("forget-store")
@click.argument("backend")
@click.option("--config", "-c", type=_CONFIG, default="twistd.conf", show_default=True)
def forget_store(backend: str, config: Path) -> None:
    """Accept another store for BACKEND: a new disk, volume group or pool.

    At its next start the daemon accepts the store that it finds as the backend's. From then on
    volumes on the former store cannot be reached.
    """
    from bootvol import reactors
    from bootvol.errors import ConfigurationError
    from bootvol.locks import known_id
    from bootvol.store import stores
    from bootvol.store.database import Database

    settings = _settings(config)
    database = Database(settings.database, reactors.installed())
    try:
        database.check()
        host = settings.state.host or known_id(settings.state.directory)
        forgotten = database.alone(stores.forget, backend, host)
    except ConfigurationError as error:
        raise CommandFailed(str(error)) from None
    if not forgotten:
        raise CommandFailed(f"the database has no store of a backend {backend!r}", NOT_FOUND)
    click.echo(f"The store of {backend} is forgotten. Restart the daemon.")


@bootvol.command("hash-password")
def hash_password() -> None:
    """Print the hash of a password or secret key, for the configuration.

    The command asks for the password. If standard input is no terminal, its first line is taken.
    """
    import sys

    from bootvol import passwords

    if sys.stdin.isatty():
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise CommandFailed("the password is empty")
    click.echo(passwords.hash_password(password))


def _settings(file: Path) -> Settings:
    from bootvol import settings
    from bootvol.errors import ConfigurationError

    try:
        return settings.load(file)
    except ConfigurationError as error:
        raise CommandFailed(str(error)) from None


bootvol.add_command(users.commands(_settings, _CONFIG))


# --- commands of the client ----------------------------------------------------------------------


bootvol.add_command(images.image)


@bootvol.group()
def volume() -> None:
    """Volumes."""


@volume.command("create")
@click.option(
    "--image",
    help="Image id, name or URL, or a file to add as an image (./FILE, ../FILE or /FILE). Without"
    " an image the volume is blank.",
)
@click.option("--size", type=click.IntRange(min=1), required=True, help="GiB.")
@click.option("--name", help="Display name.")
@click.option("--type", "volume_type", help="Name of a volume type.")
@click.option(
    "--wait", is_flag=True, help="Wait until the volume is available, and show the progress."
)
@click.pass_obj
def create_volume(
    client: Client,
    image: str | None,
    size: int,
    name: str | None,
    volume_type: str | None,
    wait: bool,
) -> None:
    """Create a volume, and print its JSON."""
    if image == "":
        # A script with an unset variable does not want a blank volume.
        raise click.BadParameter(
            "is empty; leave the option out for a blank volume", param_hint="--image"
        )
    if volume_type == "":
        raise click.BadParameter("is empty; leave the option out", param_hint="--type")
    wanted = {
        "size": size,
        "display_name": name,
        "imageRef": None if image is None else _image(client, image),
        "volume_type": volume_type,
    }
    made: JsonObject = client.post("os-volumes", {"volume": wanted}, "volume", VOLUME)
    if wait:
        made = waiting.created(client, made, bootable=image is not None)
    click.echo(show.as_json(made))


def _image(client: Client, given: str) -> str:
    """Return the ``imageRef`` of an image; add the image first if it is a file."""
    if given.startswith(("./", "../", "/")):
        return str(uploads.add(client, given)["id"])
    return client.image(given)


@volume.command("list")
@click.option("--bootable", is_flag=True, help="List only volumes created from an image.")
@click.option("--json", "raw", is_flag=True, help="Print JSON.")
@click.pass_obj
def list_volumes(client: Client, bootable: bool, raw: bool) -> None:
    """List volumes."""
    volumes = client.all("hp-bootable-volumes" if bootable else "os-volumes", "volumes")
    if raw:
        click.echo(show.as_json(volumes))
    else:
        headings = {"id": "ID", "displayName": "NAME", "size": "GiB", "status": "STATUS"}
        show.table(volumes, headings)


@volume.command("show")
@click.argument("volume_id")
@click.pass_obj
def show_volume(client: Client, volume_id: str) -> None:
    """Print a volume's JSON, with its warnings, and with the reason of an error or a wait."""
    number = segment(volume_id)
    try:
        shown = client.get(f"hp-bootable-volumes/{number}", "volume")
    except CommandFailed as failure:
        if failure.exit_code != NOT_FOUND:
            raise
        shown = client.get(f"os-volumes/{number}", "volume")
    error = waiting.error_of(client, volume_id)
    if error is not None:
        shown["error"] = error
    warnings = _warnings(client, number)
    if warnings:
        shown["warnings"] = warnings
    click.echo(show.as_json(shown))


def _warnings(client: Client, number: str) -> list[JsonObject]:
    """Return the warnings of a volume's import; none if the volume was not imported."""
    try:
        progress = client.get(f"hp-bootable-volumes/{number}/import", "import")
    except CommandFailed as failure:
        if failure.exit_code != NOT_FOUND:
            raise
        return []
    return waiting.warnings_of(progress)


@volume.command("delete")
@click.argument("volume_id")
@click.option("--wait", is_flag=True, help="Wait until the volume is gone.")
@click.pass_obj
def delete_volume(client: Client, volume_id: str, wait: bool) -> None:
    """Delete a volume, also during its creation."""
    client.delete(f"os-volumes/{segment(volume_id)}")
    if wait:
        waiting.deleted(client, volume_id)


@volume.command("detach")
@click.argument("volume_id")
@click.option("--wait", is_flag=True, help="Wait until the volume is free.")
@click.pass_obj
def detach_volume(client: Client, volume_id: str, wait: bool) -> None:
    """Detach a volume from its server.

    The command also frees a volume that a killed `bootvol volume boot` has left attached.
    """
    reservation.detach(client, volume_id)
    if wait:
        waiting.detached(client, volume_id)


@volume.command("boot")
@click.argument("volume_id")
@click.option("--memory", type=click.IntRange(min=16), default=512, show_default=True, help="MiB.")
@click.option("--accel", default="tcg", show_default=True, help="QEMU accelerator: tcg or kvm.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, max=_LONGEST),
    callback=_number,
    help="Turn the machine off after this time.",
)
@click.pass_context
def boot(
    context: click.Context, volume_id: str, memory: int, accel: str, seconds: float | None
) -> None:
    """Boot a machine from a volume on this host, with its serial console here (admins only).

    The volume is attached, under an id of its own, until the machine has ended.
    """
    stop = signals.Stop()
    with (
        signals.handled(stop),
        reservation.Reservation(context.obj, volume_id, stop) as volume,
    ):
        code = machine.boot(
            volume.address, memory, accel, seconds, stop.numbers, read_only=volume.read_only
        )
    context.exit(code)


bootvol.add_command(snapshots.snapshot)
bootvol.add_command(volume_types.volume_type)
bootvol.add_command(limits.quota)
bootvol.add_command(limits.limits)
plugins.plugin.add_command(new_plugin.new)
bootvol.add_command(plugins.plugin)
