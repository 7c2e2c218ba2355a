"""Complaints of QEMU's tools, as shown to people."""

from __future__ import annotations

import pytest

from bootvol.errors import ContainerTruncated
from bootvol.imaging.complaints import Complaints, broken

PATH = "'/proc/self/fd/4'"
STALE = [
    b"ERROR cluster 5 refcount=0 reference=1",
    b"ERROR OFLAG_COPIED data cluster: l2_entry=8000000000050000 refcount=0",
    b"ERROR refcount block 0 is outside image",
]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (f"qemu-img: Could not open {PATH}: L1 size too big\n", "L1 size too big"),
        (
            f"qemu-img: Could not open {PATH}: Could not open {PATH}: Invalid argument",
            "it is broken or incomplete (QEMU says: Invalid argument)",
        ),
        (
            f"qemu-img: {PATH}: it is odd\nqemu-img: Could not open {PATH}: Invalid argument",
            "the image: it is odd",
        ),
        (
            f"qemu-nbd: Failed to blk_new_open {PATH}: The file {PATH} is odd\n"
            f"To mend it, run:\nqemu-img check -r all {PATH}\n",
            "The file the image is odd",
        ),
        (
            "qemu-img: Could not open 'driver=vpc,force_size_calc=current_size,file.driver=file,"
            "file.filename=/proc/self/fd/4': Incorrect header checksum",
            "Incorrect header checksum",
        ),
        (
            "qemu-nbd: Disconnect client, due to: Failed to send reply: reading from file failed:"
            " Input/output error",
            "it is broken or incomplete (QEMU says: Input/output error)",
        ),
        ("ERROR cluster 0 refcount=1 reference=2", "cluster 0 refcount=1 reference=2"),
        ("", "exit code 1"),
    ],
)
def test_a_complaint_names_neither_programs_nor_paths(said: str, told: str) -> None:
    assert broken(said, 1).message == f"The image cannot be read: {told}."


def test_an_image_that_was_cut_off_is_told_by_any_complaint() -> None:
    said = "qemu-img: Could not open '/proc/self/fd/4': File truncated, expecting at least 9 bytes"
    assert isinstance(broken(said, 1), ContainerTruncated)
    said = "qemu-img: region exceeding the end of the file\nqemu-img: Invalid argument"
    assert broken(said, 1).message.endswith("region exceeding the end of the file.")
    complaints = Complaints(unclosed=True)
    for line in (
        *STALE,
        b"ERROR found l2 entry with reserved bits set: ff00",
        b"ERROR: counting reference for region exceeding the end of the file by one cluster",
        *STALE,
    ):
        complaints.take(line)
    assert not complaints.only_refcounts
    assert isinstance(broken(complaints.said, 2), ContainerTruncated)


@pytest.mark.parametrize("unclosed", [True, False])
def test_wrong_refcounts_are_forgiven_in_an_image_that_was_not_closed(unclosed: bool) -> None:
    complaints = Complaints(unclosed)
    for line in (*STALE, b"", b"3 errors were found on the image."):
        complaints.take(line)
    assert complaints.only_refcounts is unclosed
    assert bool(complaints.said) is not unclosed
