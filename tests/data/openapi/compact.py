#!/usr/bin/env python3
"""Makes responses.json of the Matrix specification's OpenAPI definitions.

    compact.py SPECIFICATION_FOLDER > responses.json

Keeps of each operation its method, path and, by status and content type, the schemas of its
responses (one of a list has to fit), and of schemas what can be checked: no descriptions, no
examples. Schemas that stand in files of their own become `$defs`.
"""

import json
import sys
from pathlib import Path

import yaml

METHODS = ("get", "put", "post", "delete", "patch", "head")
PLAIN = (
    "type", "required", "enum", "const", "pattern", "format", "minimum", "maximum", "minItems",
    "maxItems", "minLength", "maxLength", "uniqueItems", "minProperties", "maxProperties",
)
ONE = ("items", "additionalProperties", "not", "contains", "propertyNames")
LIST = ("allOf", "anyOf", "oneOf")
MAP = ("properties", "patternProperties")
IGNORED = (
    "description", "title", "example", "examples", "default", "deprecated", "$schema", "$id",
    "readOnly", "writeOnly",
)

root = Path(sys.argv[1]).resolve() / "data"
files = {}
defs = {}


def load(path):
    if path not in files:
        files[path] = yaml.safe_load(path.read_text())
    return files[path]


def find(path, ref):
    """The file and the value that a reference names."""
    file, _, pointer = ref.partition("#")
    if file:
        path = (path.parent / file.strip()).resolve()
    value = load(path)
    for part in filter(None, pointer.split("/")):
        value = value[part.replace("~1", "/").replace("~0", "~")]
    return path, value, pointer


def whole(path, value):
    """What stands where a reference may stand, outside of schemas."""
    while "$ref" in value:
        path, value, _ = find(path, value["$ref"])
    return path, value


def name(path, pointer):
    """The name of a definition: its place below `data`."""
    place = path.relative_to(root).with_suffix("").as_posix().removeprefix("api/")
    place = place.replace("event-schemas/schema/", "events/").replace("/definitions", "")
    return (place + pointer.replace("/components", "")).replace("/", ".").replace("#", ":")


def schema(path, value):
    if isinstance(value, bool):
        return value
    out = {}
    for key, part in value.items():
        if key == "$ref":
            at, target, pointer = find(path, part)
            called = name(at, pointer)
            if called not in defs:
                defs[called] = None  # definitions may name themselves
                defs[called] = schema(at, target)
            out["$ref"] = "#/$defs/" + called
        elif key in PLAIN:
            out[key] = part
        elif key in ONE:
            out[key] = schema(path, part)
        elif key in LIST:
            out[key] = [schema(path, one) for one in part]
        elif key in MAP:
            out[key] = {field: schema(path, one) for field, one in part.items()}
        elif key not in IGNORED and not key.startswith("x-"):
            sys.exit(f"{path}: what is {key}?")
    return out


def response(path, value):
    """By content type the schema, which may be missing."""
    path, value = whole(path, value)
    kinds = {}
    for kind, content in (value.get("content") or {}).items():
        kinds[kind] = schema(path, content["schema"]) if "schema" in content else {}
    return kinds


def main():
    operations = {}
    for api in ("client-server", "server-server"):
        for path in sorted((root / "api" / api).glob("*.yaml")):
            document = load(path)
            base = document["servers"][0]["variables"].get("basePath", {}).get("default", "")
            for template, methods in document["paths"].items():
                for method in METHODS:
                    if method not in methods:
                        continue
                    responses = methods[method]["responses"]
                    # Some paths stand there twice, the second time with a space after them.
                    place = (base.rstrip("/") + template.strip(), method.upper())
                    known = operations.setdefault(place, {})
                    for status, of in responses.items():
                        for kind, one in response(path, of).items() or [("", {})]:
                            kinds = known.setdefault(str(status), {})
                            if kind and one not in kinds.setdefault(kind, []):
                                kinds[kind].append(one)
    lines = ",\n".join(
        json.dumps({"method": method, "path": place, "responses": responses}, sort_keys=True)
        for (place, method), responses in sorted(operations.items())
    )
    named = ",\n".join(
        f"{json.dumps(key)}: {json.dumps(defs[key], sort_keys=True)}" for key in sorted(defs)
    )
    print(f'{{"operations": [\n{lines}\n],\n"$defs": {{\n{named}\n}}}}')


main()
