"""Images that are made of volumes."""

from __future__ import annotations

import attrs

from bootvol.model.image_records import ImageRecord, Visibility


@attrs.frozen
class NewVolumeImage:
    """A caller's request for an image of a volume.

    :ivar publishes: whether the caller may make images public.
    """

    name: str
    visibility: Visibility = Visibility.PRIVATE
    is_protected: bool = False
    publishes: bool = False


@attrs.frozen
class VolumeUpload:
    """The upload of a volume's bytes, as stored in the database.

    :ivar source: name of the source that takes the image.
    :ivar image: the record of the image, without bytes.
    :ivar daemon: the daemon that knows the caller's token; None if the source needs no token.
    :ivar is_given_up: whether the image is to be removed: its caller got an error.
    """

    volume_id: int
    source: str
    image: ImageRecord
    daemon: str | None = None
    is_given_up: bool = False
