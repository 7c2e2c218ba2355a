"""Random changes of foreign input: each parser gives a result or a named error."""

from __future__ import annotations

import struct
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pytest_twisted import ensureDeferred

from bootvol.errors import ImageCorrupt, ImportFailed, SourceFailed
from bootvol.imaging.inspect import CONTAINERS, FOOTER, HEAD, ContainerDetected, Inspection
from bootvol.imaging.truncation import check_tables
from bootvol.testing.backends import noise
from bootvol.threads import Threads
from bootvol_plugins.http.checksums import Ambiguous, find_digest, text_of
from bootvol_plugins.http.urls import Refused, joined, lies_under, name_of, parse, to_ask
from tests.fuzzing import fuzz
from tests.images import PACKERS, convert, qcow2
from tests.unit.test_decompress import contents
from tests.unit.test_imaging import Stream

KINDS = {"qcow2": "qcow2", "vmdk": "vmdk", "vpc": "vhd", "vhdx": "vhdx", "vdi": "vdi"}
#: Difficult numbers for parsers: sizes, offsets and counts of all widths, in both byte orders.
NUMBERS = st.sampled_from([0, 1, 2, 255, 512, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1])
PATCHES = st.binary(min_size=1, max_size=8) | st.tuples(
    NUMBERS, st.sampled_from([">Q", "<Q", ">I", "<I"])
).map(lambda pair: struct.pack(pair[1], pair[0] % 2 ** (8 * struct.calcsize(pair[1]))))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """An image in each container format."""
    folder: Path = tmp_path_factory.mktemp("images")
    return [convert(folder, kind, disk=noise(1024 * 1024)) for kind in KINDS]


def changed(data: st.DataObject, content: bytes, places: int) -> bytes:
    """Return content with changes in the first and last bytes, perhaps cut off.

    :param places: number of bytes at the start that may change.
    """
    made = bytearray(content)
    first = st.integers(0, min(places, len(content)))
    last = st.integers(max(0, len(content) - FOOTER), len(content))
    for place, patch in data.draw(st.lists(st.tuples(first | last, PATCHES), max_size=4)):
        made[place : place + len(patch)] = patch
    return bytes(made[: data.draw(st.sampled_from([len(made), len(made), HEAD, 1000]) | first)])


@fuzz(150)
@given(data=st.data())
def test_broken_containers_end_in_named_errors(images: list[bytes], data: st.DataObject) -> None:
    """Break: `src/bootvol/imaging/inspect.py`: `except (oslo.ImageFormatError, struct.error) as error:` -> `except KeyError as error:`"""  # noqa: E501
    content = changed(data, data.draw(st.sampled_from(images)), 2048)
    stated = data.draw(st.sampled_from([None, "raw", *CONTAINERS]))
    cuts = data.draw(st.lists(st.integers(HEAD, max(HEAD, len(content))), max_size=3).map(sorted))
    inspection = Inspection(stated)
    with suppress(ImportFailed, ContainerDetected):
        inspection.begin(memoryview(content[:HEAD]))
        for begin, end in pairwise([HEAD, *cuts, max(HEAD, len(content))]):
            if data.draw(st.booleans()):
                inspection.more(memoryview(content[begin:end]))
            else:
                inspection.skip(end - begin)
            assert inspection.disk_size >= 0
        inspection.finish()
        inspection.check_packed(None)


@fuzz(60)
@given(data=st.data())
@ensureDeferred
async def test_broken_compression_ends_in_named_errors(
    threads: Threads, data: st.DataObject
) -> None:
    """Any change of a compressed image gives its bytes, or an error with a readable message.

    Break: `src/bootvol/imaging/members.py`: `except FAILURES as error:` -> `except KeyError as
    error:`.
    """
    content = data.draw(st.sampled_from([b"", noise(100), noise(5000) + bytes(9000)]))
    packed = data.draw(st.sampled_from([pack(content) for pack in PACKERS.values()]))
    more = data.draw(st.sampled_from([b"", bytes(100), packed, noise(20)]))
    with suppress(ImportFailed, SourceFailed):
        await contents(Stream(changed(data, packed, 64) + more), threads)


#: Lines of lists of digests, right and wrong.
DIGESTS = st.sampled_from(["0" * 32, "a" * 40, "B" * 64, "c" * 96, "d" * 128, "e" * 63, "x" * 64])
LINES = st.lists(
    DIGESTS
    | st.text(max_size=8)
    | st.sampled_from(
        [
            *(
                "  ",
                " *",
                "\\",
                "\t",
                "\r",
                "\n",
                "\n",
                "\n\n",
                "a.img",
                "x/a.img",
                "./",
                "(",
                ") = ",
            ),
            *("SHA256", "MD5", "# ", "-----BEGIN PGP SIGNED MESSAGE-----\n", "Hash: SHA256\n\n"),
            *("-----BEGIN PGP SIGNATURE-----\n", "- ", "\ufeff", "\0"),
        ]
    ),
    max_size=14,
).map("".join)


@fuzz(100)
@given(text=LINES, by_list=st.booleans(), coding=st.sampled_from(["utf-8", "utf-16", "latin-1"]))
def test_any_list_of_digests_is_read(text: str, by_list: bool, coding: str) -> None:
    """Any bytes are read as a list of digests with one, several or no digests.

    Break: `plugins/bootvol_plugins/http/checksums.py`: `data.decode("utf-16" if utf_16 else
    "utf-8", "replace")` -> `data.decode()`.
    """
    with suppress(Ambiguous):
        found = find_digest(text_of(text.encode(coding, "replace")), "x/a.img", by_list=by_list)
        assert found is None or len(found.value) in {32, 40, 64, 96, 128}


#: Parts of URLs, right and wrong.
URLS = st.lists(
    st.text(max_size=4)
    | st.sampled_from(
        [
            *(
                "http://",
                "https://",
                "HTTP:",
                "//",
                "/",
                ":",
                "@",
                "?",
                "#",
                "..",
                ".",
                "%2e",
                "%00",
            ),
            *(
                "host",
                "h",
                "xn--a",
                "xn--",
                "\u00e9",
                "\u3002",
                "\uff0f",
                "[::1]",
                "[",
                "]",
                "[v1.a]",
            ),
            *(
                "127.0.0.1",
                "0x7f.1",
                ":80",
                ":0",
                ":99999",
                ":\u0661",
                "%",
                "%zz",
                "\\",
                " ",
                "\t",
                "user",
            ),
        ]
    ),
    max_size=8,
).map("".join)


@fuzz(200)
@given(text=URLS, reference=URLS)
@example(text="", reference="http://\u00b2")
@example(text="http://\u00c0..", reference="")
def test_any_url_is_refused_or_stays_as_it_is(text: str, reference: str) -> None:
    """Break: `plugins/bootvol_plugins/http/urls.py`: `if _NAME.fullmatch(url.host) is None:` -> `if
    False:`
    """
    for begin in ("", "http://host/"):
        try:
            url = parse(begin + text)
        except Refused:
            continue
        assert parse(url.to_text()).to_text() == url.to_text()
        assert to_ask(url).to_text() == url.to_text()
        assert url.to_text().isascii()
        assert isinstance(name_of(url), str)
        assert lies_under(url, [url])
        with suppress(Refused):
            assert joined(url, reference).to_text().isascii()


@pytest.mark.parametrize(("place", "value"), [(20, 63), (36, 2**32 - 1)])
def test_no_table_of_a_qcow2_takes_much_memory(tmp_path: Path, place: int, value: int) -> None:
    """QEMU refuses such images, but an image may have taken over QEMU.

    Break: `src/bootvol/imaging/truncation.py`: `bits > _QCOW2_LARGEST or` -> `False or`.
    Break: `src/bootvol/imaging/truncation.py`: `or length > _QCOW2_LONGEST` -> `or False`.
    """
    image = tmp_path / "image"
    good = bytearray(qcow2(tmp_path))
    good[place : place + 4] = value.to_bytes(4, "big")
    image.write_bytes(good)
    with image.open("rb") as file, pytest.raises(ImageCorrupt, match="impossible table"):
        check_tables("qcow2", file.fileno())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("2FA54224-CD1B-4876-B211-5DBED83BF4B8", "the size of the disk is missing"),
        ("8B7CA206-4790-4B9A-B8FE-575F050F886E", "the region of metadata is missing"),
    ],
)
def test_what_is_missing_in_a_vhdx_is_not_looked_for_again(
    tmp_path: Path, name: str, message: str
) -> None:
    """A vhdx image without the size of its disk is refused, before more of the image is read.

    Otherwise each further piece of the image would be compared with thousands of entries.

    Break: `src/bootvol/imaging/inspect.py`: `raise oslo.ImageFormatError("the size of the disk is
    missing")` -> `return`.
    Break: `src/bootvol/imaging/inspect.py`: `raise oslo.ImageFormatError("the region of metadata is
    missing")` -> `return`.
    """
    content = convert(tmp_path, "vhdx").replace(UUID(name).bytes_le, bytes(16))
    inspection = Inspection("vhdx")
    inspection.begin(memoryview(content)[:HEAD])
    with pytest.raises(ImageCorrupt, match=message):
        inspection.more(memoryview(content)[HEAD:])


def test_a_size_that_the_container_states_in_four_bytes(tmp_path: Path) -> None:
    """The metadata table of a vhdx states the length of the disk's size."""
    content = bytearray(convert(tmp_path, "vhdx"))
    # The item "Virtual Disk Size" ([MS-VHDX], section 2.6.2.2), its offset, and its length.
    entry = content.index(UUID("2FA54224-CD1B-4876-B211-5DBED83BF4B8").bytes_le)
    assert struct.unpack_from("<I", content, entry + 20) == (8,)
    struct.pack_into("<I", content, entry + 20, 4)
    inspection = Inspection(None)
    with suppress(ContainerDetected):
        inspection.begin(memoryview(content)[:HEAD])
    inspection.more(memoryview(content)[HEAD:])
    with pytest.raises(ImageCorrupt, match=r"^The vhdx image is broken: "):
        assert inspection.disk_size
