"""The served images, and folders for daemons."""

from __future__ import annotations

import tempfile
from functools import cached_property
from pathlib import Path

from benchmarks.debian import link_images
from benchmarks.images import make_images


class Site:
    """The images behind a web server.  Each kind is made at its first use.

    :param folder: a folder for all files.
    :ivar www: the folder that the server serves.
    :ivar url: the server's URL, with a slash at its end.
    """

    def __init__(self, folder: Path, www: Path, url: str) -> None:
        self._folder = folder
        self.www = www
        self.url = url

    @cached_property
    def images(self) -> Path:
        """A folder of images for a daemon; the images of random bytes are served, too."""
        images = self.fresh() / "images"
        images.mkdir()
        make_images(self.www, images)
        return images

    @cached_property
    def debian(self) -> Path:
        """The folder of the Debian images, which are served below ``debian/``."""
        return link_images(self.www / "debian")

    def fresh(self) -> Path:
        """Return a new empty folder."""
        return Path(tempfile.mkdtemp(dir=self._folder))
