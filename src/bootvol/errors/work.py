"""Errors of imports, and the errors of all work."""

from __future__ import annotations

from typing import ClassVar

from bootvol.errors.base import BootvolError, ErrorReport


class ImportFailed(BootvolError):
    """An import ended without a bootable volume.

    :cvar of_image: whether every other import of the same image would fail with the same error.
    :ivar came: bytes in the target of the failed read, if a retry may help.  These bytes belong to
        the image and need not be sent again.
    """

    of_image: ClassVar[bool] = True
    came: int = 0
    code = "import-failed"
    retryable = False
    remedy = "Correct the cause in the message, then delete the volume and create it again."
    default_message = "The image could not be copied onto the volume."


class StatusSet(BootvolError):
    """An operator has set the status."""

    code = "status-set"
    retryable = False
    remedy = "Ask the operator for the reason. The operator can make the object available again."
    default_message = "The operator has set the status."


class ImageTooLarge(ImportFailed):
    """The image has more bytes than the volume."""

    of_image = False
    code = "image-too-large"
    remedy = (
        "Delete the volume, and create a larger volume. If the image holds snapshots or saved"
        " memory, `qemu-img convert` leaves these out."
    )


class ImageTruncated(ImportFailed):
    """The source ended before the end of the image."""

    code = "image-truncated"
    retryable = True
    remedy = (
        "Delete the volume and create it again. If the error persists, check the image's source."
    )


class ImageLengthUnknown(ImportFailed):
    """The server states no length, and nothing else shows that the image is complete."""

    code = "image-length-unknown"
    remedy = (
        "Have the image's digest published beside it, or have it stored compressed,"
        " or have its server state a length."
    )
    default_message = (
        "The server states no length of the image and ended the connection: that may be the image's"
        " end or a break."
    )


class ImageCorrupt(ImportFailed):
    """The image or its compression is broken, or needs more than the limits allow."""

    code = "image-corrupt"
    remedy = (
        "Have the image stored anew. Run `qemu-img check`, or a test of the compression"
        " (`gzip -t`, `xz -t`), on the source to find out whether the image is broken there."
    )


class ImageNeedsRepair(ImageCorrupt):
    """The image is marked as damaged or as not closed."""

    code = "image-needs-repair"
    remedy = (
        "Have `qemu-img check -r all` repair the image on its source, then create the volume again."
    )


class DigestMismatch(ImportFailed):
    """The received bytes differ from the bytes that the source promised."""

    code = "digest-mismatch"
    remedy = "Have the image or its stated digest corrected, then create the volume again."


class ContainerTruncated(ImageCorrupt):
    """The whole image came, but lacks a part that its own tables refer to."""

    code = "container-truncated"
    remedy = "Have the image stored anew: the stored image is incomplete."


class ImageBomb(ImportFailed):
    """The image needs more memory or time than the limits for reading allow."""

    # The limits are higher for a larger volume.
    of_image = False
    code = "image-bomb"
    remedy = "Have the image made anew with common settings, or stored as a raw disk."


class ImageRefersElsewhere(ImportFailed):
    """The image is not self-contained: it refers to other files for its content."""

    code = "image-refers-elsewhere"
    remedy = "Have the image stored in one file, without a backing or data file."


class ImageAmbiguous(ImportFailed):
    """The image has several formats or several disks, and nothing shows the right one."""

    code = "image-ambiguous"
    remedy = "Have the image made anew, in one format and with one disk."


class FormatMismatch(ImportFailed):
    """The image does not have the format that its source states."""

    code = "format-mismatch"
    remedy = "Have the image's stated format corrected, then create the volume again."


class UnsupportedFormat(ImportFailed):
    """The image has an unsupported format."""

    code = "unsupported-format"
    remedy = "Convert the image to a raw disk or to qcow2, then create the volume again."


class ConverterMissing(ImportFailed):
    """The program that reads containers is missing, or cannot be confined."""

    of_image = False
    code = "converter-missing"
    remedy = "Have the operator run `bootvol check-config --machine`, or use a raw image."


class NotADisk(ImportFailed):
    """The source sent something other than a disk image."""

    code = "not-a-disk"
    remedy = "Check that the image reference leads to a disk image."


class ImageUnidentified(NotADisk):
    """Nothing shows that the image is a disk, and the operator requires proof."""

    code = "image-unidentified"
    remedy = (
        "Check that the image reference leads to a disk image. If so, have the operator set"
        " `strict_images = false` in `[imports]`."
    )
    default_message = (
        "The image does not look like a disk: it has no partition table, no boot sector and no file"
        " system."
    )


class SourceFailed(ImportFailed):
    """The image's source cannot be reached, or broke off.

    :param retry_after: seconds that the source asks clients to wait.
    """

    code = "source-failed"
    retryable = True
    remedy = "Try again. If the error persists, ask the operator to check the image's source."
    default_message = "The image's source does not answer."

    def __init__(self, message: str | None = None, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class SourceGone(SourceFailed):
    """The operator has removed the image's source from the configuration.

    :param name: the source's name.
    """

    code = "source-gone"
    retryable = False
    remedy = (
        "Ask a daemon that has the source, or have the operator put the source back into the"
        " configuration, or delete the volume and create it of another image."
    )

    def __init__(self, name: str) -> None:
        super().__init__(f"The image source {name} is not in the configuration of this daemon.")


class SourceRefused(ImportFailed):
    """The image's source refuses to give the image out."""

    code = "source-refused"
    remedy = "Ask the owner of the image, or the operator, for access to the image."


class UnexpectedFailure(BootvolError):
    """A defect of bootvol itself.  The log has the details."""

    code = "unexpected-failure"
    remedy = (
        "Ask the operator to report the traceback in the log, then delete and create the object"
        " again."
    )
    default_message = "An unexpected failure stopped the work on this volume."


class DatabaseRefused(BootvolError):
    """The database will never accept the write, at any retry."""

    code = "database-refused"
    retryable = False
    remedy = "Ask the operator to read the log, which shows the rejected value."
    default_message = "The database refused to store the result of this work."


def reason(error: BaseException) -> ErrorReport:
    """Return the report to store with a volume after ``error`` stopped its work.

    An error that is not bootvol's own is a defect.  Its text is for the log, not for tenants.
    """
    known = error if isinstance(error, BootvolError) else UnexpectedFailure()
    return known.report()
