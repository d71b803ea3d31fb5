"""Types that pydantic knows how to validate: its models, and annotations with metadata."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from parrot_nb.language import scalars
from parrot_nb.language.scalars import UnusableTypeError

# Keywords of a schema that say nothing about the text, or that only validation afterwards can judge.
LEFT_OUT = ("title", "description", "default", "examples", "discriminator", "deprecated", "readOnly", "writeOnly", "uniqueItems",
            "propertyNames", "contentMediaType", "contentEncoding", "contentSchema")  # fmt: skip
FORMATS = ("time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid")  # that constraints can have
EXACT = {"date": scalars.DATE, "date-time": scalars.DATETIME}


def adapted(kind: Any, name: str) -> tuple[dict[str, Any], Callable[[Any], Any], dict[str, Any]]:
    """The schema of a type, what loads a JSON value, and the definitions that the schema refers to, named after `name`.

    Raises:
        UnusableTypeError: pydantic is not installed, or has no schema for the type.
    """
    try:
        import pydantic
    except ImportError:
        raise UnusableTypeError("annotations with metadata need pydantic: pip install pydantic") from None
    try:
        adapter = pydantic.TypeAdapter(kind)
        schema = adapter.json_schema(mode="validation", by_alias=True)
    except Exception as error:  # pydantic's own, or of the user's classes
        shown = str(error).split("\n", 1)[0]
        raise UnusableTypeError(f"pydantic has no JSON schema for it ({shown})") from None
    given = schema.pop("$defs", {})
    names = {f"#/$defs/{old}": f"{name}x{i}" for i, old in enumerate(given)}
    definitions = {names[f"#/$defs/{old}"]: _constraining(inner, names) for old, inner in given.items()}

    def load(value: Any) -> Any:
        return adapter.validate_json(json.dumps(value, default=float))

    return _constraining(schema, names), load, definitions


def _constraining(schema: Any, names: dict[str, str]) -> Any:
    """A schema as a constraint: without what says nothing about the text, and closed where it does not say otherwise."""
    if isinstance(schema, list):
        return [_constraining(inner, names) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    kept: dict[str, Any] = {}
    for key, value in schema.items():
        if key in LEFT_OUT:
            continue
        if key in ("properties", "patternProperties"):
            kept[key] = {field: _constraining(inner, names) for field, inner in value.items()}
        elif key in ("enum", "const"):
            kept[key] = value
        elif key == "$ref":
            kept[key] = f"#/$defs/{names[value]}" if value in names else value
        elif key == "oneOf":  # told apart by a tag, or by validation
            kept["anyOf"] = _constraining(value, names)
        elif key != "format" or value in FORMATS:
            kept[key] = _constraining(value, names)
        elif value in EXACT:
            kept["pattern"] = f"^{EXACT[value]}$"
    if "properties" in kept:
        kept.setdefault("additionalProperties", False)
    return kept
