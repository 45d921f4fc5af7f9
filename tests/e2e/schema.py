"""JSON Schema, as much of it as docs/bench.schema.json uses: a word that is not known is an error."""

KNOWN = {"$schema", "$defs", "$ref", "title", "type", "properties", "required", "items", "enum",
         "additionalProperties", "minimum", "minItems", "dependentRequired"}


def is_type(value, name):
    if name in ("number", "integer"):
        kinds = (int, float) if name == "number" else int
        return isinstance(value, kinds) and not isinstance(value, bool)
    return isinstance(value, {"object": dict, "array": list, "string": str, "boolean": bool}[name])


def faults(value, schema, root, at="$"):
    """Sentences on what in value is not as the schema has it."""
    if schema.get("$ref") == "#":
        return faults(value, root, root, at)
    if "$ref" in schema:
        return faults(value, root["$defs"][schema["$ref"].rsplit("/", 1)[1]], root, at)
    out = ["%s: the schema's word %s is not known" % (at, w) for w in set(schema) - KNOWN]
    if "enum" in schema and value not in schema["enum"]:
        return out + ["%s: %r is none of %r" % (at, value, schema["enum"])]
    if "type" in schema and not is_type(value, schema["type"]):
        return out + ["%s: %.60r is no %s" % (at, value, schema["type"])]
    if "minimum" in schema and value < schema["minimum"]:
        out.append("%s: %r is below %r" % (at, value, schema["minimum"]))
    if isinstance(value, list):
        if len(value) < schema.get("minItems", 0):
            out.append("%s: only %d" % (at, len(value)))
        for i, v in enumerate(value):
            out += faults(v, schema.get("items", {}), root, "%s[%d]" % (at, i))
    if isinstance(value, dict):
        known = schema.get("properties", {})
        wanted = set(schema.get("required", []))
        for key, more in schema.get("dependentRequired", {}).items():
            wanted |= set(more) if key in value else set()
        out += ["%s: %s is missing" % (at, k) for k in sorted(wanted - set(value))]
        for k, v in value.items():
            if k in known:
                out += faults(v, known[k], root, "%s.%s" % (at, k))
            elif schema.get("additionalProperties") is False:
                out.append("%s: %s is not in the schema" % (at, k))
    return out
