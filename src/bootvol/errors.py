"""The one tree of errors: what went wrong, in a form for machines and for people.

Every class has a stable ``code`` (never reused, never renamed), the HTTP ``status`` that a
dialect of the API answers with, whether trying again unchanged can help (``retryable``), and a
``remedy``: what a person can do.  A dialect turns an error into its own fault form; the reason
kept with a volume in ``error`` is the same error as an :class:`ErrorReport`.
"""

from __future__ import annotations

from typing import ClassVar

import attrs


@attrs.frozen
class ErrorReport:
    """An error as it is stored and shown; the fields mean what :class:`BootvolError` says."""

    code: str
    message: str
    retryable: bool
    remedy: str


class BootvolError(Exception):
    """The root: whatever bootvol itself knows to have gone wrong.

    :param message: one sentence for the person who asked; without it, the class's own.
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = True
    remedy: ClassVar[str] = "Try again later; if it goes on, ask the operator to read the log."
    default_message: ClassVar[str] = "Server Error, please try again later."

    def __init__(self, message: str | None = None) -> None:
        self.message = message or self.default_message
        super().__init__(self.message)

    def report(self) -> ErrorReport:
        """Return this error as the value that is stored with a volume."""
        return ErrorReport(self.code, self.message, self.retryable, self.remedy)


# --- what a request got wrong ----------------------------------------------------------------


class InvalidRequest(BootvolError):
    """The request cannot be carried out as it is."""

    code = "invalid-request"
    status = 400
    retryable = False
    remedy = "Correct the request and send it again."
    default_message = "The request is not valid."


class MalformedBody(InvalidRequest):
    """The body is not what its content type says."""

    code = "malformed-body"
    default_message = "Malformed request body"


class UnsupportedContentType(InvalidRequest):
    """The body is of a type that the API does not read."""

    code = "unsupported-content-type"
    remedy = "Send JSON, with Content-Type: application/json."
    default_message = "Unsupported Content-Type"


class BodyTooLarge(InvalidRequest):
    """The body is larger than any request of the API can need."""

    code = "body-too-large"
    remedy = "Send a smaller request."
    default_message = "Request is too large."


class MalformedUrl(InvalidRequest):
    """The path names another tenant than the token, or is not text."""

    code = "malformed-url"
    remedy = "Use the tenant that your token is for."
    default_message = "Malformed request url"


class MissingEntity(InvalidRequest):
    """The body lacks the object that the call is about."""

    code = "missing-entity"
    status = 422
    remedy = "Wrap the request in the object that the reference names."
    default_message = "Unable to process the contained instructions"


class InvalidImageRef(InvalidRequest):
    """The image reference has a form that no source reads, or names a place not allowed."""

    code = "invalid-image-ref"
    remedy = "Use an image id that the service lists, or a URL that the operator allows."
    default_message = "Invalid imageRef provided."


class ImageLargerThanVolume(InvalidRequest):
    """The image is known to need a larger volume."""

    code = "image-larger-than-volume"
    remedy = "Ask for a larger volume."
    default_message = "Size of specified image is larger than volume size."


class VolumeBusy(InvalidRequest):
    """The volume's status does not allow what was asked."""

    code = "volume-busy"
    remedy = "Wait until the volume has the status that the call needs."
    default_message = "Volume status must be available or error"


class SnapshotBusy(InvalidRequest):
    """The snapshot's status does not allow what was asked."""

    code = "snapshot-busy"
    remedy = "Wait until the snapshot has the status that the call needs."
    default_message = "Snapshot status must be available or error"


class ServerBusy(InvalidRequest):
    """The server's status does not allow what was asked."""

    code = "server-busy"
    remedy = "Wait until the server is active."
    default_message = "Server status must be ACTIVE"


class BadMapping(InvalidRequest):
    """A server cannot be made of the volumes that were named."""

    code = "bad-mapping"
    remedy = "Map vda to a volume that is available, or to a snapshot."


class InvalidDevice(InvalidRequest):
    """The name is not one of a disk.

    :param device: as the caller gave it.
    """

    code = "invalid-device"
    remedy = "Name the device as /dev/vdb is named, or leave it out."

    def __init__(self, device: str) -> None:
        super().__init__(f"The supplied device path ({device}) is invalid.")


class DeviceInUse(BootvolError):
    """The server has another disk of that name.

    :param device: as the caller gave it.
    """

    code = "device-in-use"
    status = 409
    retryable = False
    remedy = "Name another device, or leave it out."

    def __init__(self, device: str) -> None:
        super().__init__(f"The supplied device path ({device}) is in use.")


class NoHypervisor(BootvolError):
    """The operator has configured nothing that could run servers."""

    code = "no-hypervisor"
    status = 501
    retryable = False
    remedy = "Boot from the volume elsewhere, or have the operator configure a hypervisor."
    default_message = "This service runs no servers."


class UnknownBackend(InvalidRequest):
    """A volume type names a backend that is not configured."""

    code = "unknown-backend"
    remedy = "Have the type's volume_backend_name name a backend of the configuration."


class Unauthorized(BootvolError):
    """There is no token, or it is not valid."""

    code = "unauthorized"
    status = 401
    retryable = False
    remedy = "Send a valid token in X-Auth-Token."
    default_message = "This server could not verify that you are authorized to access it."


class LoginFailed(Unauthorized):
    """The credentials are wrong, or do not give access to the project that was asked for."""

    code = "login-failed"
    remedy = "Check the name, the password or key, and the project; then log in again."
    default_message = "The request you have made requires authentication."


class TooManyLogins(BootvolError):
    """Too many logins have failed, or are under way at once.

    :param retry_after: seconds, more than 0, after which to try again.
    """

    code = "too-many-logins"
    status = 429
    remedy = "Wait as long as Retry-After says; then log in again."
    default_message = "Too many logins; try again later."

    def __init__(self, retry_after: float) -> None:
        super().__init__()
        self.retry_after = retry_after


class IdentityFailed(BootvolError):
    """The identity service cannot verify what it is given, or keep what it must remember."""

    code = "identity-failed"
    status = 503
    remedy = "Ask the operator to look at the daemon's log and at the disk with its state."
    default_message = "The identity service failed."


class Forbidden(BootvolError):
    """The caller lacks the right."""

    code = "forbidden"
    status = 403
    retryable = False
    remedy = "Ask somebody with the right role."
    default_message = "Access was denied to this resource."


class NotFound(BootvolError):
    """Nothing is there, or nothing that this caller may know of."""

    code = "not-found"
    status = 404
    retryable = False
    remedy = "List what there is, and use an id from the list."
    default_message = "The resource could not be found."


class VolumeNotFound(NotFound):
    """The caller's tenant has no such volume.

    :param volume_id: the id as the caller gave it.
    """

    code = "volume-not-found"

    def __init__(self, volume_id: int | str) -> None:
        super().__init__(f"Volume {volume_id} could not be found.")


class SnapshotNotFound(NotFound):
    """The caller's tenant has no such snapshot.

    :param snapshot_id: the id as the caller gave it.
    """

    code = "snapshot-not-found"

    def __init__(self, snapshot_id: int | str) -> None:
        super().__init__(f"Snapshot {snapshot_id} could not be found.")


class ServerNotFound(NotFound):
    """The caller's tenant has no such server.

    :param server_id: the id as the caller gave it.
    """

    code = "server-not-found"

    def __init__(self, server_id: str) -> None:
        super().__init__(f"Server {server_id} could not be found.")


class FlavorNotFound(NotFound):
    """There is no such flavor.

    :param flavor_id: the id as the caller gave it.
    """

    code = "flavor-not-found"

    def __init__(self, flavor_id: str) -> None:
        super().__init__(f"Flavor {flavor_id} could not be found.")


class AttachmentNotFound(NotFound):
    """The volume is not attached to that server."""

    code = "attachment-not-found"


class ImageNotFound(NotFound):
    """No source has such an image, as far as the caller may know.

    :param reference: the image reference as the caller gave it.
    """

    code = "image-not-found"

    def __init__(self, reference: str) -> None:
        super().__init__(f"Image {reference} could not be found.")


class VolumeTypeNotFound(NotFound):
    """There is no such volume type.

    :param which: the id or name as the caller gave it.
    """

    code = "volume-type-not-found"

    def __init__(self, which: int | str) -> None:
        super().__init__(f"Volume type {which} could not be found.")


class VolumeTypeExists(BootvolError):
    """Another volume type has that name."""

    code = "volume-type-exists"
    status = 409
    retryable = False
    remedy = "Choose another name, or change the type that there is."

    def __init__(self, name: str) -> None:
        super().__init__(f"Volume Type {name} already exists.")


class MethodNotAllowed(BootvolError):
    """The path is there, but not for this method."""

    code = "method-not-allowed"
    status = 405
    retryable = False
    remedy = "Use a method that the reference gives for this path."
    default_message = "The method is not allowed for the requested URL."


class QuotaExceeded(BootvolError):
    """The tenant has used what it is allowed."""

    code = "quota-exceeded"
    status = 413
    retryable = False
    remedy = "Delete what is not needed, or ask for a higher quota."


class RateLimited(BootvolError):
    """The tenant has asked too often.

    :param details: which limit it was.
    :param retry_after: whole seconds after which it may ask again.
    """

    code = "rate-limited"
    status = 413
    retryable = True
    remedy = "Wait as long as the answer says, then send the request again."
    default_message = "This request was rate-limited."

    def __init__(self, details: str, retry_after: int) -> None:
        super().__init__()
        self.details = details
        self.retry_after = retry_after


# --- what became of an import or of the space under a volume -----------------------------------


class ImportFailed(BootvolError):
    """An import ended without a volume that can boot."""

    code = "import-failed"
    status = 400
    retryable = False
    remedy = "Read the message, delete the volume, and create it again."
    default_message = "The image could not be copied onto the volume."


class ImageTooLarge(ImportFailed):
    """The image has more bytes than the volume."""

    code = "image-too-large"
    remedy = "Delete the volume and create a larger one."


class ImageTruncated(ImportFailed):
    """The source ended before the image did."""

    code = "image-truncated"
    retryable = True
    remedy = "Delete the volume and try again; if it goes on, look at the image's source."


class ImageCorrupt(ImportFailed):
    """The image's compression is broken, or asks for more than may be given."""

    code = "image-corrupt"
    remedy = "Have the image put right, or stored uncompressed."


class DigestMismatch(ImportFailed):
    """The bytes that came are not the ones that the source promised."""

    code = "digest-mismatch"
    remedy = "Have the image or its stated digest put right, then create the volume again."


class ContainerTruncated(ImageCorrupt):
    """All of the image came, but it lacks a part that its own tables speak of."""

    code = "container-truncated"
    remedy = "Have the image stored anew: it was cut off before it came here."


class ImageBomb(ImportFailed):
    """The image asks for more memory or time than reading one may take."""

    code = "image-bomb"
    remedy = "Have the image made anew with the usual settings, or stored as a raw disk."


class ImageRefersElsewhere(ImportFailed):
    """The image is not whole in itself: it would have other files read in its place."""

    code = "image-refers-elsewhere"
    remedy = "Have the image stored in one file, without a backing or data file."


class ImageAmbiguous(ImportFailed):
    """The image is of several formats at once; which of its disks is meant cannot be known."""

    code = "image-ambiguous"
    remedy = "Have the image made anew, in one format."


class FormatMismatch(ImportFailed):
    """The image is not in the format that its source states."""

    code = "format-mismatch"
    remedy = "Have the image's stated format put right, then create the volume again."


class UnsupportedFormat(ImportFailed):
    """The image is in a format that is not read."""

    code = "unsupported-format"
    remedy = "Convert the image to a raw disk or to qcow2, and use that."


class ConverterMissing(ImportFailed):
    """The program that reads containers is not there, or may not be locked up as it must be."""

    code = "converter-missing"
    status = 503
    remedy = "Have the operator install qemu-utils and util-linux, or use a raw image."


class NotADisk(ImportFailed):
    """What the source sent is no disk image at all."""

    code = "not-a-disk"
    remedy = "Check what the image reference leads to."


class SourceFailed(ImportFailed):
    """The image's source cannot be reached, or broke off.

    :param retry_after: seconds that the source asks to be left alone for.
    """

    code = "source-failed"
    status = 503
    retryable = True
    remedy = "Try again; if it goes on, ask the operator whether the image's source is well."
    default_message = "The image's source does not answer."

    def __init__(self, message: str | None = None, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class SourceRefused(ImportFailed):
    """The image's source will not give it out."""

    code = "source-refused"
    remedy = "Ask whoever keeps the image, or the operator, to allow it."


class BackendFailed(BootvolError):
    """The place where volumes live refused or failed."""

    code = "backend-failed"
    status = 503
    remedy = "Ask the operator to look at the backend, then delete and create the volume again."
    default_message = "The storage backend failed."


class NoSpace(BackendFailed):
    """The backend has no room for the volume."""

    code = "no-space"
    remedy = "Have the operator add space, or delete volumes that are not needed."
    default_message = "The storage backend has no space left."


class SpoolFull(BackendFailed):
    """There is no room for a container while the disk in it is read."""

    code = "spool-full"
    remedy = (
        "Have the operator make room where `[imports] spool` lies, or raise `spool_gib`,"
        " or use a raw image."
    )
    default_message = "The daemon has no room to unpack the image."


class HypervisorFailed(BootvolError):
    """The hypervisor refused or failed."""

    code = "hypervisor-failed"
    status = 503
    remedy = "Ask the operator to look at the hypervisor, then try again."
    default_message = "The hypervisor failed."


class ExportFailed(BootvolError):
    """A volume cannot be served to where its server runs."""

    code = "export-failed"
    status = 503
    remedy = "Ask the operator to look at the daemon's log and at qemu-nbd, then try again."
    default_message = "The volume cannot be exported."


class UnexpectedFailure(BootvolError):
    """A defect of bootvol itself; the log has it in full."""

    code = "unexpected-failure"
    remedy = "Ask the operator to report the traceback in the log; delete and create again."
    default_message = "An unexpected failure stopped the work on this volume."


# --- what the operator got wrong ---------------------------------------------------------------


class ConfigurationError(BootvolError):
    """The configuration, or the machine under it, does not let the daemon run."""

    code = "configuration"
    retryable = False
    remedy = "Correct the configuration; `bootvol check-config FILE` says when it is right."


class DefectivePlugin(ConfigurationError):
    """A plugin does not provide the interface that it is named for."""

    code = "defective-plugin"
    remedy = "Install another version of the plugin, or tell its author."


def reason(error: BaseException) -> ErrorReport:
    """Return what to store with a volume that ``error`` stopped.

    An error that is not bootvol's own is a defect: its text is for the log, not for tenants.
    """
    known = error if isinstance(error, BootvolError) else UnexpectedFailure()
    return known.report()
