"""The commands for images."""

from __future__ import annotations

import click

from bootvol.cli import show, uploads
from bootvol.cli.client import Client, segment
from bootvol.cli.shapes import OBJECT, USES, taken


@click.group()
def image() -> None:
    """Images that volumes can be created from."""


@image.command("list")
@click.option("--json", "raw", is_flag=True, help="Print JSON.")
@click.pass_obj
def list_images(client: Client, raw: bool) -> None:
    """List images."""
    images = client.all("images/detail", "images")
    if raw:
        click.echo(show.as_json(images))
    else:
        headings = {
            "id": "ID",
            "name": "NAME",
            "OS-EXT-IMG-SIZE:size": "BYTES",
            "minDisk": "MIN GiB",
        }
        show.table(images, headings)


@image.command("add")
@click.argument("place", metavar="FILE|URL|-")
@click.option("--name", help="Name of the image. Default: the name of the file.")
@click.option("--format", "disk_format", help="Disk format. Default: as the first bytes show.")
@click.option("--min-disk", type=click.IntRange(min=0), help="GiB that a volume needs at least.")
@click.pass_obj
def add_image(
    client: Client, place: str, name: str | None, disk_format: str | None, min_disk: int | None
) -> None:
    """Add an image of the project from a file, a URL or standard input, and print its JSON."""
    made = uploads.add(client, place, name=name, disk_format=disk_format, min_disk=min_disk)
    click.echo(show.as_json(made))


@image.command("delete")
@click.argument("image_id")
@click.pass_obj
def delete_image(client: Client, image_id: str) -> None:
    """Delete an image of the project; volumes made from the image stay."""
    client.delete(f"/image/v2/images/{segment(image_id)}")


@image.command("cached")
@click.option("--json", "raw", is_flag=True, help="Print JSON.")
@click.pass_obj
def list_goldens(client: Client, raw: bool) -> None:
    """List the cached images (golden volumes), which need no download (admins only)."""
    found = client.answer("golden-volumes")
    if raw:
        click.echo(show.as_json(found))
        return
    headings = {
        "imageRef": "IMAGE",
        "backend": "BACKEND",
        "bytes": "BYTES",
        "hits": "HITS",
        "usedAt": "LAST USED",
    }
    show.table(taken(found, "goldenVolumes", [OBJECT]), headings)
    for backend, use in taken(found, "use", USES).items():
        show.line(f"{backend}: {use['hits']} hits, {use['misses']} misses since the start")
