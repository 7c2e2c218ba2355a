"""The ``tar`` source: the regular members of an uncompressed tar archive are the images."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Sequence
from pathlib import Path

from zope.interface import implementer

from bootvol.errors import ImageNotFound, SourceFailed
from bootvol.interfaces import IImageSource, IImageStream, PluginContext, SourcePlugin
from bootvol.model import Caller, Image
from bootvol.options import Options, TrustedFile
from bootvol.threads import Threads


class TarOptions(Options):
    """The settings of the plugin's ``[[sources]]``."""

    archive: TrustedFile


@implementer(IImageSource)
class TarSource:
    """The images of an archive. An image's id is the member's name."""

    def __init__(self, name: str, archive: Path, threads: Threads) -> None:
        self.name = name
        self._archive = archive
        self._threads = threads

    async def images(self, caller: Caller) -> Sequence[Image]:
        """List the members in a thread, since reading their headers blocks."""
        members = await self._threads.run(self._members)
        return [self._image(each) for each in sorted(members.values(), key=lambda m: m.name)]

    async def find(self, caller: Caller, reference: str) -> Image:
        """Find a member by name."""
        return self._image(await self._threads.run(self._member, reference))

    async def open(
        self, image: Image, offset: int = 0, validator: str | None = None
    ) -> IImageStream:
        """Open the archive at the member's first byte. This source cannot resume."""
        return await self._threads.obtain(_Member.shut, self._open, image.id)

    def _image(self, member: tarfile.TarInfo) -> Image:
        return Image(member.name, self.name, Path(member.name).name, size_bytes=member.size)

    def _members(self) -> dict[str, tarfile.TarInfo]:
        try:
            with tarfile.open(self._archive, "r:") as archive:
                return {each.name: each for each in archive.getmembers() if each.isreg()}
        except (OSError, tarfile.TarError) as error:
            # Tenants must not learn the reason: it names a path of this machine.
            raise SourceFailed(f"Source {self.name} cannot be read.") from error

    def _member(self, name: str) -> tarfile.TarInfo:
        try:
            return self._members()[name]
        except KeyError:
            raise ImageNotFound(name) from None

    def _open(self, name: str) -> _Member:
        member = self._member(name)
        descriptor = os.open(self._archive, os.O_RDONLY | os.O_CLOEXEC)
        return _Member(descriptor, member.offset_data, member.size, self._threads)


@implementer(IImageStream)
class _Member:
    """The bytes of one member."""

    def __init__(self, descriptor: int, start: int, size: int, threads: Threads) -> None:
        self.size: int | None = size
        self.offset = 0
        self.validator: str | None = None
        self._descriptor: int | None = descriptor
        self._start = start
        self._threads = threads
        self._done = 0

    async def read_into(self, target: memoryview) -> int:
        """Fill ``target``, or a part of it if fewer bytes are left."""
        if self._descriptor is None:
            raise SourceFailed("the image has been closed")
        wanted = target[: (self.size or 0) - self._done]
        count = await self._threads.run(_fill, self._descriptor, self._start + self._done, wanted)
        self._done += count
        return count

    async def close(self) -> None:
        """Close the archive."""
        await self._threads.run(self.shut)

    def shut(self) -> None:
        """Close the archive at once, even for a caller cancelled during the open."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def _fill(descriptor: int, offset: int, target: memoryview) -> int:
    done = 0
    while done < len(target):
        count = os.preadv(descriptor, [target[done:]], offset + done)
        if not count:
            break
        done += count
    return done


def _make(options: TarOptions, context: PluginContext) -> TarSource:
    return TarSource(context.name, options.archive, context.threads)


PLUGIN = SourcePlugin(TarOptions, _make)
