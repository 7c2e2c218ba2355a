"""The settings of the plugin."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from bootvol.options import Options

#: A valid name of LVM (lvm(8), "Valid names"). LVM has more rules for its own names.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_+][A-Za-z0-9_+.-]{0,126}$")]


class LvmOptions(Options):
    """A table ``[[backends]]`` of this plugin."""

    group: Name
    """The volume group for the volumes."""
    pool: Name | None = None
    """A thin pool in the group for the volumes.  Without a pool, volumes are thick."""
    full_percent: int = Field(default=90, ge=1, le=100)
    """Limit for the use of the pool's data or metadata space, in percent.  Beyond this limit, the
    backend accepts no new volumes.
    """
