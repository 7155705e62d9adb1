"""``python -m converters.release.schemas``: writes the schemas into the package, from the types that they are of."""

from __future__ import annotations

from converters.files import json_text
from converters.release.schemas import SCHEMAS, file_of

for name, schema in SCHEMAS.items():
    file_of(name).write_text(json_text(schema()), encoding="utf-8")
