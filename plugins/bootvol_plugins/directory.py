"""The ``directory`` source: the files of one folder are the images.

An image's id is its file name.  In a file name a letter with a mark (é) may be one character or
two, depending on the system that the file came from.  Either form finds the image (Unicode
Standard, Annex 15: NFC and NFD).  If the folder has files of both forms, the form must be exact.

A file ``index.toml`` in the folder may describe some images::

    [[images]]
    id = "4"                     # the imageRef; the file's name then no longer serves
    file = "debian-12.raw"
    name = "Debian 12"           # default: the id
    format = "qcow2"             # raw, iso, qcow2, vmdk, vhd, vhdx, vdi; default: detected
    min_disk = 2                 # GiB; default: 0
    sha512 = "…"                 # of the file; checked on every import

With ``writable = true`` callers may bring images, too.  Their records and bytes are in a hidden
folder: see :mod:`bootvol_plugins.directory_records`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from bootvol import checks
from bootvol.checks import Mistake
from bootvol.interfaces import PluginContext, SourcePlugin
from bootvol.model import GIB
from bootvol.options import Options, SharedFolder
from bootvol_plugins.directory_index import FORMATS, INDEX, Names, read_index
from bootvol_plugins.directory_source import DirectorySource
from bootvol_plugins.directory_store import WritableDirectory


class DirectoryOptions(Options):
    """A table ``[[sources]]`` of this plugin."""

    directory: SharedFolder
    """The directory of the images.  The file index.toml in the directory may describe images."""
    writable: bool = False
    """Whether callers may bring images, in a hidden folder of the directory."""
    quota_gib: Annotated[float, Field(gt=0, le=2**20, strict=True)] | None = None
    """The largest size of all images of one project, in GiB (no limit)."""


def _make(options: DirectoryOptions, context: PluginContext) -> DirectorySource:
    if options.writable:
        quota = None if options.quota_gib is None else int(options.quota_gib * GIB)
        return WritableDirectory(context, options.directory, quota)
    return DirectorySource(context.name, options.directory, context.threads)


def _check(options: DirectoryOptions) -> Iterator[Mistake]:
    # The folder may appear later. Until then the source has no images.
    found = list(checks.readable_folder("directory", options.directory, fatal=False))
    yield from found
    if found:
        return
    if options.writable and not os.access(options.directory, os.W_OK, effective_ids=True):
        remedy = "Give the daemon's user the right to write to the folder."
        yield Mistake("directory", options.directory, "the folder cannot be written to", remedy)
    index = options.directory / INDEX
    try:
        entries = read_index(options.directory).images
    except FileNotFoundError:
        return
    except OSError as error:
        fault = f"the index cannot be read: {error.strerror}"
        remedy = "Let index.toml be a file that the daemon's user may read."
        yield Mistake("directory", index, fault, remedy, fatal=False)
        return
    except ValueError as error:
        fault = " ".join(f"the index is not valid: {error}".split())
        yield Mistake("directory", index, fault, "Correct the index.", fatal=False)
        return
    names = Names(frozenset(os.listdir(options.directory)))
    for entry in entries:
        name = names.meant(entry.file)
        if name is None:
            fault = f"the index names {entry.file!r}, which is not in the folder"
            remedy = "Put the image into the folder, or correct the index."
            yield Mistake("directory", index, fault, remedy, fatal=False)
            continue
        elif not (options.directory / name).is_file():
            fault = f"the index names {entry.file!r}, which is not a file"
        elif entry.format is not None and entry.format not in FORMATS:
            fault = (
                f"image {entry.id!r} has the format {entry.format!r}, which bootvol does not read"
            )
        else:
            continue
        yield Mistake("directory", index, fault, "Correct the index.", fatal=False)


PLUGIN = SourcePlugin(DirectoryOptions, _make, _check)
