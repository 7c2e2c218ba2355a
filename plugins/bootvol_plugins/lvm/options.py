"""The settings of the plugin."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from bootvol.options import Options

#: A valid name of LVM (lvm(8), "Valid names"). LVM has more rules for its own names.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_+][A-Za-z0-9_+.-]{0,126}$")]


class LvmOptions(Options):
    """``[[backends]]`` of this plugin."""

    group: Name
    """The volume group."""
    pool: Name | None = None
    """The thin pool in it; None is a volume on extents of its own."""
    full_percent: int = Field(default=90, ge=1, le=100)
    """Of the pool's data or metadata; from there on nothing new is let into it."""
