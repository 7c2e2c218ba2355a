"""Models of request bodies in the spelling of Cinder v1 and v2."""

from __future__ import annotations

from typing import Any

from pydantic import AliasChoices, BaseModel, Field

from bootvol.api.bodies import BODY, Text
from bootvol.api.nova import bodies
from bootvol.jsons import JsonObject


def _called(name: str) -> Any:
    """Return the field of a name or description, in the spellings of Cinder v1 and v2."""
    return Field(default=None, validation_alias=AliasChoices(f"display_{name}", name))


class CreateCinderVolume(bodies.CreateVolume):
    """The object ``volume`` of a create request."""

    display_name: Text | None = _called("name")
    display_description: Text | None = _called("description")


class CreateCinderSnapshot(bodies.CreateSnapshot):
    """The object ``snapshot`` of a create request."""

    display_name: Text | None = _called("name")
    display_description: Text | None = _called("description")


class ChangeSnapshot(BaseModel):
    """The object ``snapshot`` of an update: null removes a value; absent keys change nothing."""

    model_config = BODY

    display_name: Text | None = _called("name")
    display_description: Text | None = _called("description")

    @property
    def values(self) -> JsonObject:
        """The changed values, by their names in the core."""
        return self.model_dump(include=self.model_fields_set)


class ChangeVolume(ChangeSnapshot):
    """The object ``volume`` of an update; null does not change the metadata, as in Cinder."""

    metadata: dict[Text, Text] | None = None

    @property
    def values(self) -> JsonObject:
        """The changed values, by their names in the core."""
        ignored = {"metadata"} if self.metadata is None else set()
        return self.model_dump(include=self.model_fields_set - ignored)
