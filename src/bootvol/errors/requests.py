"""Errors in requests, and refused or deferred requests."""

from __future__ import annotations

from bootvol.errors.base import BootvolError


class InvalidRequest(BootvolError):
    """The request cannot be carried out in its current form."""

    code = "invalid-request"
    retryable = False
    remedy = "Correct the request and send it again."
    default_message = "The request is not valid."


class MalformedBody(InvalidRequest):
    """The body does not match its content type."""

    code = "malformed-body"
    default_message = "Malformed request body"


class MalformedRequest(InvalidRequest):
    """The request is not HTTP/1.1 (RFC 9112)."""

    code = "malformed-request"
    default_message = "Malformed request"


class UnsupportedContentType(InvalidRequest):
    """The API does not read this content type."""

    code = "unsupported-content-type"
    remedy = "Send JSON, with Content-Type: application/json."
    default_message = "Unsupported Content-Type"


class BodyTooLarge(InvalidRequest):
    """The body is larger than any valid request of the API."""

    code = "body-too-large"
    remedy = "Send a smaller request."
    default_message = "Request is too large."


class BodyIncomplete(InvalidRequest):
    """The client closed the connection within the body."""

    code = "body-incomplete"
    remedy = "Send the whole body."
    default_message = "The body of the request is incomplete."


class BodyTooSlow(BootvolError):
    """The client sends the body too slowly."""

    code = "body-too-slow"
    retryable = True
    remedy = "Send the body faster, over a better connection."
    default_message = "The body of the request comes too slowly."


class HeadersTooLarge(BootvolError):
    """The request line and the headers are larger than in any valid request of the API."""

    code = "headers-too-large"
    retryable = False
    remedy = "Send fewer or shorter headers, or a shorter query."
    default_message = "Request headers are too large."


class MalformedUrl(InvalidRequest):
    """The path names another tenant than the token, or is not text."""

    code = "malformed-url"
    remedy = "Use the tenant of your token in the path."
    default_message = "Malformed request url"


class ApiVersionUnsupported(BootvolError):
    """The API does not have the version that the request asks for.

    :param asked: the version of the request.
    """

    code = "api-version-unsupported"
    retryable = False
    remedy = "Ask for a version in the range, or for the latest."

    def __init__(self, asked: str, lowest: str, highest: str) -> None:
        super().__init__(
            f"Version {asked} is not supported by the API."
            f" Minimum is {lowest} and maximum is {highest}."
        )


class MissingEntity(InvalidRequest):
    """The body lacks the main object of the call."""

    code = "missing-entity"
    remedy = "Wrap the request in the object that /openapi.json gives for the call."
    default_message = "Unable to process the contained instructions"


class InvalidImageRef(InvalidRequest):
    """The image reference has a form that no source reads, or names a forbidden place."""

    code = "invalid-image-ref"
    remedy = "Use an image id from the list of images, or a URL that the operator allows."
    default_message = "Invalid imageRef provided."


class ImageNotReady(InvalidRequest):
    """The image is known, but its source does not have the whole image yet."""

    code = "image-not-ready"
    retryable = True
    remedy = "Wait until the image is active, then send the request again."
    default_message = "The image is not active yet."


class ImageUnusable(InvalidRequest):
    """The image is known, but its source allows nobody to use it."""

    code = "image-unusable"
    remedy = "Have the image activated, or use another image."
    default_message = "The image is not active."


class ImageLargerThanVolume(InvalidRequest):
    """The image is known to need a larger volume."""

    code = "image-larger-than-volume"
    remedy = (
        "Request a larger volume. If the image holds snapshots or saved memory, `qemu-img convert`"
        " leaves these out."
    )
    default_message = "Size of specified image is larger than volume size."


class VolumeBusy(InvalidRequest):
    """The volume's status does not allow the request."""

    code = "volume-busy"
    remedy = "Wait until the volume has the required status, then send the request again."
    default_message = "Volume status must be available or error"


class TransferKeyWrong(InvalidRequest):
    """The key is not that of the offered volume."""

    code = "transfer-key-wrong"
    remedy = "Ask the giver of the volume for the key."
    default_message = "The key of the transfer is wrong."


class SnapshotBusy(InvalidRequest):
    """The snapshot's status does not allow the request."""

    code = "snapshot-busy"
    remedy = "Wait until the snapshot has the required status, then send the request again."
    default_message = "Snapshot status must be available or error"


class ServerBusy(InvalidRequest):
    """The server's status does not allow the request."""

    code = "server-busy"
    remedy = "Wait until the server is active, then send the request again."
    default_message = "Server status must be ACTIVE"


class BadMapping(InvalidRequest):
    """A server cannot be created from the named volumes."""

    code = "bad-mapping"
    remedy = "Map vda to a volume that is available, or to a snapshot."


class InvalidDevice(InvalidRequest):
    """The name is not a disk's device name.

    :param device: the name from the caller.
    """

    code = "invalid-device"
    remedy = "Use a device name like /dev/vdb, or leave the device out."

    def __init__(self, device: str) -> None:
        super().__init__(f"The supplied device path ({device}) is invalid.")


class DeviceInUse(BootvolError):
    """The server has another disk with this device name.

    :param device: the name from the caller.
    """

    code = "device-in-use"
    retryable = False
    remedy = "Name another device, or leave the device out."

    def __init__(self, device: str) -> None:
        super().__init__(f"The supplied device path ({device}) is in use.")


class NoHypervisor(BootvolError):
    """The operator has configured no hypervisor."""

    code = "no-hypervisor"
    retryable = False
    remedy = (
        "Boot from the volume on another hypervisor, or have the operator configure a hypervisor."
    )
    default_message = "This service runs no servers."


class NotServed(BootvolError):
    """The API knows the call, and bootvol does not do such work."""

    code = "not-served"
    retryable = False
    remedy = "Do without: docs/api-compatibility.md gives the reason, and other ways."
    default_message = "This service does not do that."


class UnknownBackend(InvalidRequest):
    """A volume type names a backend that is not configured."""

    code = "unknown-backend"
    remedy = "Set the type's volume_backend_name to a configured backend."


class DatabaseUnavailable(BootvolError):
    """The database does not answer or accepts no writes for now: down, silent, locked or full.

    The write may have succeeded all the same.

    :ivar retry_after: seconds until the next try, more than 0.
    """

    code = "database-unavailable"
    retryable = True
    remedy = (
        "Wait for the time in Retry-After. If the error persists, ask the operator to read the log."
    )
    default_message = "The database of the service does not answer for now; try again later."
    retry_after = 5.0


class ServiceShort(BootvolError):
    """The daemon lacks open files, memory or threads for an answer."""

    code = "service-short"
    retryable = True
    remedy = "Try again later. If the error persists, ask the operator to read the log."
    default_message = "The service is short of resources; try again later."
    #: Seconds until the next try.
    retry_after = 5.0


class TooManyCalls(BootvolError):
    """Too many calls of one tenant or address, or for one slow service, are in flight."""

    code = "too-many-calls"
    retryable = True
    remedy = (
        "Wait for the time in Retry-After, then send the request again. Send fewer calls at once."
    )
    default_message = "Too many calls are under way; try again later."
    #: Seconds until the next try.
    retry_after = 5.0


class VolumeTypeUsed(InvalidRequest):
    """The volume type has volumes."""

    code = "volume-type-used"
    remedy = "Delete the volumes of the type, or give them another type."
    default_message = "Target volume type is still in use."


class VolumeTypeExists(BootvolError):
    """Another volume type has this name."""

    code = "volume-type-exists"
    retryable = False
    remedy = "Choose another name, or change the existing type."

    def __init__(self, name: str) -> None:
        super().__init__(f"Volume Type {name} already exists.")


class QosSpecsExist(BootvolError):
    """Other limits of speed have this name."""

    code = "qos-specs-exist"
    retryable = False
    remedy = "Choose another name, or change the existing limits."

    def __init__(self, name: str) -> None:
        super().__init__(f"QoS Specs {name} already exists.")


class QosSpecsInUse(InvalidRequest):
    """A volume type has the limits of speed, or has others."""

    code = "qos-specs-in-use"
    remedy = "Take the limits from the volume types first."
    default_message = "Qos specs still in use."


class VolumeTypeAccessUnchanged(BootvolError):
    """The change of a volume type's access has no effect."""

    code = "volume-type-access-unchanged"
    retryable = False
    remedy = "List the tenants with access. All tenants have access to public types."


class MethodNotAllowed(BootvolError):
    """The path exists, but not for this method."""

    code = "method-not-allowed"
    retryable = False
    remedy = "Use a method that /openapi.json gives for this path."
    default_message = "The method is not allowed for the requested URL."


class RateLimited(BootvolError):
    """The tenant has sent too many requests.

    :param details: the exceeded limit.
    :param retry_after: whole seconds until the next allowed request.
    """

    code = "rate-limited"
    retryable = True
    remedy = "Wait for the time in the answer, then send the request again."
    default_message = "This request was rate-limited."

    def __init__(self, details: str, retry_after: int) -> None:
        super().__init__()
        self.details = details
        self.retry_after = retry_after


class InvalidKeyPair(InvalidRequest):
    """The name of a key pair, or its public key, is invalid."""

    code = "invalid-key-pair"
    remedy = (
        "Send a public key in one line, in the form of ssh-keygen. A name has up to 255 letters,"
        " digits, spaces, and the characters @ . _ and -."
    )
    default_message = "Keypair data is invalid: failed to generate fingerprint"


class KeyPairExists(BootvolError):
    """The user has another key pair with this name."""

    code = "key-pair-exists"
    retryable = False
    remedy = "Choose another name, or delete the existing key pair first."

    def __init__(self, name: str) -> None:
        super().__init__(f"Key pair '{name}' already exists.")


class ServerConflict(BootvolError):
    """The server's current state does not allow the action."""

    code = "server-conflict"
    retryable = True
    remedy = "Wait until the server has a status that allows the action."

    def __init__(self, action: str, server_id: str, state: str) -> None:
        # Nova's text.
        super().__init__(f"Cannot '{action}' instance {server_id} while it is in vm_state {state}")


class NotForGuests(InvalidRequest):
    """The hypervisor cannot provide the requested guest configuration."""

    code = "not-for-guests"
    remedy = "Leave key_name, user_data and config_drive out of the request."
    default_message = (
        "This service's hypervisor gives guests no config drive: key_name, user_data and"
        " config_drive cannot be used."
    )
