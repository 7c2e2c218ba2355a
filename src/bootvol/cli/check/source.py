"""The suite of a configured source, with one of its images. The suite changes nothing there."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import ClassVar, Final

import attrs
import pytest
import pytest_twisted

from bootvol.cli.check.configured import IMAGE, TOKEN, build
from bootvol.errors import BootvolError
from bootvol.interfaces import IClosable, IImageSource, PluginContext
from bootvol.model import Caller
from bootvol.testing.sources import CALLER, ImageSourceContract, Subject

_MIB: Final = 1024 * 1024
#: The suite reads the image about twenty times, and holds the image in memory.
_LARGEST: Final = 64 * _MIB


class TestSource(ImageSourceContract):
    """The source, as the operator has configured it."""

    #: The image's bytes at the first read. All later reads must agree.
    content: ClassVar[bytes] = b""

    @pytest_twisted.async_yield_fixture
    async def subject(self, context: PluginContext) -> AsyncIterator[Subject]:
        source = build(context)
        reference = os.environ[IMAGE]
        caller = attrs.evolve(CALLER, token=os.environ.get(TOKEN) or None)
        try:
            try:
                TestSource.content = self.content or await _read(source, caller, reference)
                # A source lists all of its images or none.
                lists = bool(await source.images(caller))
            except BootvolError as error:
                pytest.exit(f"image {reference!r} cannot be read: {error}")
            yield Subject(source, (reference, self.content), lists=lists, caller=caller)
        finally:
            if IClosable.providedBy(source):
                await source.close()


async def _read(source: IImageSource, caller: Caller, reference: str) -> bytes:
    stream = await source.open(await source.find(caller, reference))
    try:
        buffer = memoryview(bytearray(_LARGEST + 1))
        content = bytes(buffer[: await stream.read_into(buffer)])
    finally:
        await stream.close()
    if not _MIB <= len(content) <= _LARGEST:
        pytest.exit(f"image {reference!r} must be of 1 MiB to {_LARGEST // _MIB} MiB")
    return content
