"""The records of callers' images as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import attrs
import orjson

from bootvol.model import (
    Digest,
    Image,
    ImageFetch,
    ImageMember,
    ImageRecord,
    ImageStatus,
    MemberStatus,
    StoredBytes,
    Visibility,
)

T = TypeVar("T")


def to_json(record: ImageRecord) -> bytes:
    """Return the content of a record's file."""
    return orjson.dumps(attrs.asdict(record))


def from_json(content: bytes) -> ImageRecord:
    """Return the record that the content of a file describes.

    Members that an earlier version did not know have their defaults.

    :raises ValueError: if the content describes no record.  Also KeyError and TypeError.
    """
    values = dict(_mapping(orjson.loads(content)))
    tags, properties = values.pop("tags"), values.pop("properties")
    data, fetch = values.pop("data"), values.pop("fetch", None)
    members = values.pop("members", [])
    if not isinstance(tags, list) or not isinstance(members, list):
        raise TypeError("tags or members are no lists")
    values["status"] = ImageStatus(str(values["status"]))
    values["visibility"] = Visibility(str(values["visibility"]))
    values["tags"] = tuple(tags)
    values["properties"] = _mapping(properties)
    values["data"] = None if data is None else _made(StoredBytes, _mapping(data))
    values["members"] = tuple(map(_member, members))
    values["fetch"] = None if fetch is None else _fetch(_mapping(fetch))
    return _made(ImageRecord, values)


def _member(content: object) -> ImageMember:
    values = dict(_mapping(content))
    values["status"] = MemberStatus(str(values["status"]))
    return _made(ImageMember, values)


def _fetch(content: Mapping[str, object]) -> ImageFetch:
    image = content["image"]
    return _made(ImageFetch, {**content, "image": None if image is None else _image(image)})


def _image(content: object) -> Image:
    values = dict(_mapping(content))
    digest = values["digest"]
    values["digest"] = None if digest is None else _made(Digest, _mapping(digest))
    return _made(Image, values)


def _mapping(content: object) -> Mapping[str, object]:
    if not isinstance(content, dict):
        raise TypeError("an object is missing")
    return content


def _made(kind: Callable[..., T], values: Mapping[str, object]) -> T:
    return kind(**values)
