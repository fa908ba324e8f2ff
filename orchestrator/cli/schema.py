"""`ptx schema`."""

from __future__ import annotations

import json

from orchestrator.cli.options import Json
from orchestrator.cli.output import emit, emit_json


def schema(as_json: Json = False) -> None:
    """Print the JSON Schema of the spec, for editors and other tools.

    \b
    Examples:
      ptx schema > ptx.schema.json
      ptx schema --json | jq .schema.properties
    """
    from orchestrator.spec.schema import json_schema

    found = json_schema()
    if as_json:
        emit_json({"schema": found})
    else:
        emit(json.dumps(found, indent=2, ensure_ascii=False))
