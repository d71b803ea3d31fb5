"""The shortest text of a JSON schema, so that a `max_tokens` that no value fits into is refused before anything runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

KNOWN = ("type", "properties", "items", "prefixItems", "enum", "const", "anyOf", "$ref")


def least_text(schema: Mapping[str, Any]) -> str | None:
    """A text that is as short as any of the schema, as far as that is known, on one line; None if all of them are endless."""
    definitions: Mapping[str, Any] = schema.get("$defs", {})
    known: dict[str, str | None] = {}  # of definitions; None while they are being looked at

    def least(inner: Any) -> str | None:
        if not isinstance(inner, Mapping):
            return "0"
        if "$ref" in inner:
            name = str(inner["$ref"]).removeprefix("#/$defs/")
            if name not in known:
                known[name] = None
                known[name] = least(definitions.get(name))
                if known[name] is None:
                    del known[name]
                    return None
            return known[name]
        if "enum" in inner or "const" in inner:
            return min((json.dumps(value, ensure_ascii=False) for value in inner.get("enum", [inner.get("const")])), key=len)
        if "anyOf" in inner:
            return min((text for each in inner["anyOf"] if (text := least(each)) is not None), key=len, default=None)
        match inner.get("type"):
            case "string":
                return json.dumps("a" * int(inner.get("minLength", 0)))
            case "integer" | "number":
                return _number(inner)
            case "boolean":
                return "true"
            case "null":
                return "null"
            case "array":
                return _array(inner)
            case "object":
                return _object(inner)
        return "0"

    def _array(inner: Mapping[str, Any]) -> str | None:
        count = int(inner.get("minItems", 0))
        items = [*inner.get("prefixItems", [])][:count]
        texts = [least(item) for item in items]
        if count > len(items):
            texts += [least(inner.get("items", {}))] * (count - len(items))
        return None if None in texts else f"[{', '.join(text for text in texts if text is not None)}]"

    def _object(inner: Mapping[str, Any]) -> str | None:
        properties = inner.get("properties", {})
        fields = []
        for name in inner.get("required", ()):
            text = least(properties.get(name, {}))
            if text is None:
                return None
            fields.append(f"{json.dumps(name, ensure_ascii=False)}: {text}")
        return "{" + ", ".join(fields) + "}"

    return least(schema)


def _number(schema: Mapping[str, Any]) -> str:
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    if low is not None and low > 0:
        return str(int(low))
    if high is not None and high < 0:
        return str(int(high))
    return "0"
