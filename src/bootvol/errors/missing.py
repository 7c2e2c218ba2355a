"""Errors about objects that do not exist for the caller."""

from __future__ import annotations

from bootvol.errors.base import BootvolError, without_query


class NotFound(BootvolError):
    """The object does not exist, or the caller may not know of it."""

    code = "not-found"
    retryable = False
    remedy = "List the objects, and use an id from the list."
    default_message = "The resource could not be found."


class VolumeNotFound(NotFound):
    """The caller's tenant has no such volume.

    :param volume_id: the id from the caller.
    """

    code = "volume-not-found"

    def __init__(self, volume_id: int | str) -> None:
        super().__init__(f"Volume {volume_id} could not be found.")


class SnapshotNotFound(NotFound):
    """The caller's tenant has no such snapshot.

    :param snapshot_id: the id from the caller.
    """

    code = "snapshot-not-found"

    def __init__(self, snapshot_id: int | str) -> None:
        super().__init__(f"Snapshot {snapshot_id} could not be found.")


class ServerNotFound(NotFound):
    """The caller's tenant has no such server.

    :param server_id: the id from the caller.
    """

    code = "server-not-found"

    def __init__(self, server_id: str) -> None:
        super().__init__(f"Server {server_id} could not be found.")


class FlavorNotFound(NotFound):
    """The flavor does not exist.

    :param flavor_id: the id from the caller.
    """

    code = "flavor-not-found"

    def __init__(self, flavor_id: str) -> None:
        super().__init__(f"Flavor {flavor_id} could not be found.")


class AttachmentNotFound(NotFound):
    """The volume is not attached to this server."""

    code = "attachment-not-found"


class ImageNotFound(NotFound):
    """No source has such an image, as far as the caller may know.

    :param reference: the image reference from the caller.
    """

    code = "image-not-found"

    def __init__(self, reference: str) -> None:
        super().__init__(f"Image {without_query(reference)} could not be found.")


class ImageMemberNotFound(NotFound):
    """The image is not shared with this project, as far as the caller may know.

    :param image_id: the id of the image.
    :param tenant: the project.
    """

    code = "image-member-not-found"

    def __init__(self, image_id: str, tenant: str) -> None:
        super().__init__(f"{tenant} not found in the member list of the image {image_id}.")


class QosSpecsNotFound(NotFound):
    """The limits of speed do not exist.

    :param which: the id from the caller.
    """

    code = "qos-specs-not-found"

    def __init__(self, which: str) -> None:
        super().__init__(f"No such QoS spec {which}.")


class FailureNotFound(NotFound):
    """The caller's tenant has no such message about a failure, or the message is forgotten.

    :param uuid: the id from the caller.
    """

    code = "failure-not-found"

    def __init__(self, uuid: str) -> None:
        super().__init__(f"Message {uuid} could not be found.")


class VolumeTypeNotFound(NotFound):
    """The volume type does not exist.

    :param which: the id or name from the caller.
    """

    code = "volume-type-not-found"

    def __init__(self, which: int | str) -> None:
        super().__init__(f"Volume type {which} could not be found.")


class TransferNotFound(NotFound):
    """The caller's tenant offers no volume under this id.

    :param uuid: the id from the caller.
    """

    code = "transfer-not-found"

    def __init__(self, uuid: str) -> None:
        super().__init__(f"Transfer {uuid} could not be found.")


class KeyPairNotFound(NotFound):
    """The key pair does not exist, or belongs to another user."""

    code = "key-pair-not-found"

    def __init__(self, name: str) -> None:
        super().__init__(f"Keypair {name} not found for user")


class MetadataNotFound(NotFound):
    """The server has no metadata item with this name."""

    code = "metadata-not-found"
    default_message = "Metadata item was not found"
