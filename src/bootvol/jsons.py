"""The type of JSON documents whose fields no model describes."""

from __future__ import annotations

from typing import Any, TypeAlias

#: A JSON object.  Another program defines its fields, or reads them: QEMU, say, or a client.
JsonObject: TypeAlias = dict[str, Any]
