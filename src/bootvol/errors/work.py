"""Errors of imports, and of the storage under volumes."""

from __future__ import annotations

from typing import ClassVar

from bootvol.errors.base import BootvolError, ErrorReport
from bootvol.errors.requests import InvalidRequest


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
        "Have the operator put the source back into the configuration,"
        " or delete the volume and create it of another image."
    )

    def __init__(self, name: str) -> None:
        super().__init__(f"The image source {name} is no longer configured.")


class SourceRefused(ImportFailed):
    """The image's source refuses to give the image out."""

    code = "source-refused"
    remedy = "Ask the owner of the image, or the operator, for access to the image."


class BackendFailed(BootvolError):
    """The storage backend refused or failed."""

    code = "backend-failed"
    # The failed resource may be a snapshot of a good volume.
    remedy = "Ask the operator to check the backend. Then repeat the call that failed."
    default_message = "The storage backend failed."


class BackendSilent(BackendFailed):
    """The storage backend does not answer in time.

    :param name: the backend's name.
    """

    code = "backend-silent"
    remedy = "Try again later. If the error persists, ask the operator to check the backend."

    def __init__(self, name: str) -> None:
        super().__init__(f"The backend {name} does not answer.")


class BackendInterrupted(BackendFailed):
    """The storage backend broke the work off, and takes new work at once.

    For example, a cluster has shut a client out that was taken for dead.  The work begins again,
    as after a restart of the daemon.  A backend raises this error only if nothing of the work takes
    effect later.
    """

    code = "backend-interrupted"
    remedy = (
        "Try again. If the error persists, ask the operator why the backend breaks the work off."
    )


class BackendGone(BackendFailed):
    """The operator has removed the backend from the configuration, or renamed it.

    :param name: the backend's name.
    """

    code = "backend-gone"
    retryable = False
    remedy = (
        "Have the operator put the backend back into the configuration, under the same name:"
        " the waiting work then continues."
    )

    def __init__(self, name: str) -> None:
        super().__init__(f"The backend {name} is no longer configured.")


class NoSpace(BackendFailed):
    """The backend has no room for a volume or snapshot.

    :param never_fits: whether the volume is larger than the whole store, so that no deletion makes
        enough room.
    """

    code = "no-space"
    remedy = (
        "Delete unneeded volumes and snapshots, request a smaller volume, or have the operator add"
        " space."
    )
    default_message = "The storage backend has no space left."

    def __init__(self, message: str | None = None, *, never_fits: bool = False) -> None:
        super().__init__(message)
        self.never_fits = never_fits


class FileTooLarge(BackendFailed):
    """The system or the file system allows no file as large as the volume or snapshot."""

    code = "file-too-large"
    remedy = (
        "Request a smaller volume, or have the operator raise the daemon's limit for the size of"
        " files (LimitFSIZE of systemd, ulimit -f), or take a file system for larger files."
    )
    default_message = "The storage backend may not write a file as large as the volume."


class WrongStore(BackendFailed):
    """The backend's store is missing, or is another one.

    bootvol reads, writes and deletes nothing there.
    """

    code = "wrong-store"
    remedy = (
        "Have the operator restore the store, for example mount its disk; or accept"
        " the other store with `bootvol db forget-store`, then restart the daemon."
    )
    default_message = "The storage backend has another store than the store with its volumes."


class VolumeMissing(BackendFailed):
    """The backend has no data of a volume or snapshot that should have data."""

    code = "volume-missing"
    retryable = False
    remedy = (
        "Have the operator look where the data went: another program or person has removed or"
        " renamed the data. To remove the record alone, delete the volume or snapshot again."
    )
    default_message = "The volume's data is missing on its backend."


class HostAway(BackendFailed):
    """No daemon runs on the only host that reaches the data.

    :param host: the host's name.
    """

    code = "host-away"
    remedy = (
        "Have the operator start the daemon of that host: then the work goes on. If the disks have"
        " moved to another host, have the operator start a daemon there, with the same backend."
    )

    def __init__(self, host: str) -> None:
        super().__init__(f"The data is on host {host}, where no daemon runs.")


class VolumeElsewhere(InvalidRequest):
    """Only another host reaches the volume.

    :param host: the host's name.
    """

    code = "volume-elsewhere"
    remedy = "Ask the daemon of that host, or use volumes and servers of one host together."

    def __init__(self, host: str) -> None:
        super().__init__(f"The volume can be reached on host {host} only.")


class VolumeInUse(BackendFailed):
    """A program that bootvol does not know, or no longer knows, has the volume open."""

    code = "volume-in-use"
    remedy = (
        "End the program that has the volume open (a guest, `bootvol volume boot`, a host program),"
        " then try again."
    )
    default_message = "A program has the volume open."


class SpoolFull(BackendFailed):
    """The spool has no room for a container during its conversion."""

    code = "spool-full"
    remedy = (
        "Have the operator free space on the disk of `[imports] spool`, or raise `spool_gib`,"
        " or use a raw image."
    )
    default_message = "The daemon has no space to convert the image."


class SpoolSilent(BackendFailed):
    """The spool did not give back a container in time, although bootvol asked several times."""

    code = "spool-silent"
    remedy = "Have the operator check the disk of `[imports] spool`, then create the volume again."
    default_message = "The daemon's disk for converting images does not answer."


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
