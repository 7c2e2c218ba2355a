"""The commands for people who write or install plugins."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Literal, Union, get_args, get_origin

import click

from bootvol.cli import show
from bootvol.cli.failures import CommandFailed
from bootvol.jsons import JsonObject

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from pydantic.fields import FieldInfo

    from bootvol.plugins import AnyPlugin

_CONFIG = click.Path(dir_okay=False, path_type=Path)


@click.group()
def plugin() -> None:
    """List, check and create plugins."""


@plugin.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_plugins(as_json: bool) -> None:
    """List the installed plugins: where each comes from, whether it loads, and its settings."""
    from bootvol import plugins

    described = [_described(kind, point) for kind, point in plugins.found()]
    if as_json:
        click.echo(show.as_json(described))
        return
    for each in described:
        show.line(f"{each['kind']} {each['name']} ({each['distribution']} {each['version']})")
        if each["error"]:
            show.line(f"  does not load: {each['error']}")
        for setting in each["settings"]:
            default = "required" if setting["required"] else f"default {setting['default']}"
            meaning = f": {setting['meaning']}" if setting["meaning"] else ""
            show.line(f"  {setting['key']} ({setting['type']}, {default}){meaning}")


def _described(kind: type[AnyPlugin], point: EntryPoint) -> JsonObject:
    from bootvol import plugins
    from bootvol.errors import BootvolError

    error, settings = None, []
    try:
        fields = plugins.load(kind, point.name).settings.model_fields
        settings = [_setting(key, field) for key, field in fields.items()]
    except BootvolError as failure:
        error = str(failure)
    return {
        "kind": kind.__name__.removesuffix("Plugin").lower(),
        "name": point.name,
        "distribution": point.dist.name if point.dist else None,
        "version": point.dist.version if point.dist else None,
        "error": error,
        "settings": settings,
    }


def _setting(key: str, field: FieldInfo) -> JsonObject:
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    return {
        "key": field.alias or key,
        "type": _type(field.annotation),
        "required": field.is_required(),
        "default": None if field.is_required() else str(default),
        "meaning": " ".join((field.description or "").split()).replace("``", "`") or None,
    }


def _type(annotation: object) -> str:
    """Return a type in Python's notation, without pydantic's constraints."""
    arguments = get_args(annotation)
    origin = get_origin(annotation)
    if origin is Annotated:
        return _type(arguments[0])
    if origin is Literal:
        return " | ".join(repr(each) for each in arguments)
    if origin in (Union, UnionType):
        return " | ".join(_type(each) for each in arguments)
    if annotation in (None, type(None)):
        return "None"
    name = getattr(origin or annotation, "__name__", str(annotation))
    return f"{name}[{', '.join(map(_type, arguments))}]" if arguments else name


@plugin.command()
@click.argument("name")
@click.option(
    "--kind",
    type=click.Choice(["backend", "source", "identity"]),
    help="Kind of NAME, if several plugins have this name.",
)
@click.option("--image", metavar="REF", help="An image of the source, of 1 MiB to 64 MiB.")
@click.option("--config", "-c", type=_CONFIG, default="twistd.conf", show_default=True)
@click.pass_context
def check(
    context: click.Context, name: str, kind: str | None, image: str | None, config: Path
) -> None:
    """Check that a configured backend, source or identity keeps the contract.

    NAME is the name of the backend or the source in the configuration file, or "identity".  For a
    backend the check makes two small volumes, named contract-UUID, and deletes them again.  For a
    source the check reads an image.  For the identity the check uses BOOTVOL_TOKEN and wrong
    tokens.
    """
    try:
        import pytest_twisted  # noqa: F401
    except ImportError:
        raise CommandFailed("this needs pytest: pip install 'bootvol[testing]'") from None
    kind = _kind(config, name, kind)
    token = context.find_root().params["token"]
    if kind == "source" and not image:
        raise CommandFailed("name an image of the source for the check: --image REF")
    if kind == "identity" and not token:
        raise CommandFailed("set BOOTVOL_TOKEN to a valid token for the check of the identity")
    # Run the suite in a process of its own: the suite needs its own reactor.
    child = [sys.executable, "-m", "bootvol.cli.check", str(config), kind, name, image or ""]
    env = os.environ | {"BOOTVOL_TOKEN": token}
    code = subprocess.run(child, check=False, env=env).returncode  # noqa: S603 - our own module
    if code == 1:
        raise CommandFailed(f"{kind} {name!r} breaks the contract")
    if code:
        raise CommandFailed(f"{kind} {name!r} could not be checked")
    show.line(f"{kind} {name!r} keeps the contract")


def _kind(config: Path, name: str, wanted: str | None) -> str:
    """Return the kind of the plugin that is called ``name``."""
    from bootvol import settings
    from bootvol.cli.check.configured import by_kind
    from bootvol.errors import ConfigurationError

    try:
        known = by_kind(settings.load(config))
    except ConfigurationError as error:
        raise CommandFailed(str(error)) from None
    asked = [wanted] if wanted else list(known)
    kinds = [kind for kind in asked if name in known[kind]]
    if len(kinds) > 1:
        raise CommandFailed(f"{name!r} is {' and '.join(kinds)}: choose one with --kind")
    if not kinds:
        has = "; ".join(f"{kind} {', '.join(known[kind])}" for kind in asked)
        raise CommandFailed(f"{config} has no {' or '.join(asked)} {name!r}; it has: {has}")
    return kinds[0]
