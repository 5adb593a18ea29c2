#!/usr/bin/env python3
"""Write src/server/schema/table.tsv, the schema table that kedge compiles in.

Run by developers when the API level moves; builds never run it. Needs Python 3, pip, Go and the network.

Facts come from two pinned packages:
  * Go reflection over k8s.io/api and friends (scripts/schema/go.mod and go.sum pin versions and hashes): JSON names,
    Go types, pointers, omitempty, protobuf numbers, patch strategies; and client-go's apply schema: defaults.
  * PyPI kubernetes-validate (version and SHA-256 below): the OpenAPI definitions: required fields, list types, keys.
Where both sources speak of the same thing they must agree, else the script fails.

Line formats (tab separated):
  T name flags gvks           flags: a = atomic for apply; gvks: group/version/kind, blank separated ("*/*/X": any)
  F json type go flags pb outer list merge-key default embedded
      type   string bool int32 … | S:struct | []type | {}type
      go     the Go type as upstream's decoder prints it
      flags  r required, p pointer, o omitempty, z omitzero, a atomic map, m patch merge, k retainKeys
      pb     protobuf number (0: none); outer: numbers of the embedded messages around it, "2/2"
      list   empty (atomic) | set | map:key,key
      default JSON, scalars only
      embedded  names of the Go structs around the field that JSON does not see, "RuleWithOperations.Rule"
"""
import hashlib
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import zipfile

PACKAGE = "kubernetes-validate==1.37.0"
SHA256 = "85136d018a27b50ec7fc049d902bfa5193f5976807e6c0f408e3ab6fe078cad9"
MEMBER = "kubernetes_validate/kubernetes-json-schema/v1.37.0-local/_definitions.json"
HERE = pathlib.Path(__file__).resolve().parent
OUT = HERE.parent / "src/server/schema/table.tsv"

META = "io.k8s.apimachinery.pkg.apis.meta.v1."
# Kinds that upstream registers in every group-version.
EVERYWHERE = {"CreateOptions", "DeleteOptions", "GetOptions", "ListOptions", "PatchOptions", "UpdateOptions", "WatchEvent"}
# Served versions: generally available ones only.
SERVED = re.compile(r"v\d+$")
# Query parameter types and leftovers that never travel as bodies.
SKIPPED = re.compile(r"(Pod(Attach|Exec|Log|PortForward|Proxy)|NodeProxy|ServiceProxy|Table)Options$|RangeAllocation$|SerializedReference$|InternalEvent$")


def definitions():
    """The OpenAPI definitions out of the pinned wheel."""
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", scratch, PACKAGE], check=True)
        (wheel,) = pathlib.Path(scratch).glob("*.whl")
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if digest != SHA256:
            sys.exit(f"{wheel.name}: SHA-256 is {digest}, pinned is {SHA256}")
        return json.loads(zipfile.ZipFile(wheel).read(MEMBER))["$defs"]


def reflection():
    run = subprocess.run(["go", "run", "."], cwd=HERE / "schema", check=True, stdout=subprocess.PIPE)
    return json.loads(run.stdout)


def kinds_of(name, go):
    """group/version/kind of a type, as the table lists them."""
    found = set()
    for gvk in go["kinds"].get(name, []):
        group, version, kind = gvk.split("/")
        if version == "__internal":
            continue
        if name.startswith(META) and kind in EVERYWHERE:
            found.add(f"*/*/{kind}")
        elif SERVED.match(version) and not SKIPPED.search(kind):
            found.add(gvk)
    return sorted(found)


def reachable(go):
    """Names of all types that bodies of served kinds can hold."""
    todo = [name for name in go["types"] if kinds_of(name, go)]
    seen = set()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        for field in go["types"][name]:
            inner = re.sub(r"^(\[\]|\{\})+", "", field["type"])
            if inner.startswith("json:"):
                inner = name
            if "." in inner:
                todo.append(inner)
    return sorted(seen)


def list_type(name, field, shape, apply):
    """The list column; OpenAPI and the apply schema must agree."""
    text, want = "", ("atomic", None)
    kind = shape.get("x-kubernetes-list-type", "atomic")
    if kind == "set":
        text, want = "set", ("associative", None)
    elif kind == "map":
        keys = shape["x-kubernetes-list-map-keys"]
        text, want = "map:" + ",".join(keys), ("associative", keys)
    declared = apply.get("type", {}).get("list")
    if declared and (declared["elementRelationship"], declared.get("keys")) != want:
        sys.exit(f"{name}.{field['json']}: sources disagree on the list type")
    return text


def row(name, field, shape, apply, required):
    kind = field["type"]
    base = re.sub(r"^(\[\]|\{\})+", "", kind)
    if "." in base:
        kind = kind[: len(kind) - len(base)] + "S:" + base
    strategy = field["patchStrategy"].split(",") if field.get("patchStrategy") else []
    declared = shape.get("x-kubernetes-patch-strategy")
    if declared and sorted(declared.split(",")) != sorted(strategy):
        sys.exit(f"{name}.{field['json']}: sources disagree on the patch strategy")
    atomic = shape.get("x-kubernetes-map-type") == "atomic"
    declared = apply.get("type", {})
    if (declared.get("map") or declared).get("elementRelationship") == "atomic" and "list" not in declared and not atomic:
        if shape.get("$ref") is None:
            sys.exit(f"{name}.{field['json']}: sources disagree on atomic")
    flags = "".join(
        letter
        for letter, on in [
            ("r", required),
            ("p", field.get("ptr")),
            ("o", field.get("omitempty")),
            ("z", field.get("omitzero")),
            ("a", atomic),
            ("m", "merge" in strategy),
            ("k", "retainKeys" in strategy),
        ]
        if on
    )
    default = apply.get("default")
    scalar = default is not None and not isinstance(default, (dict, list))
    return [
        field["json"],
        kind,
        field["named"],
        flags,
        field.get("pb", "0:").split(":")[0] or "0",
        field.get("outer", ""),
        list_type(name, field, shape, apply),
        field.get("patchMergeKey", ""),
        json.dumps(default) if scalar else "",
        field.get("embedded", "").removeprefix("TypeMeta"),
    ]


def main():
    defs, go = definitions(), reflection()
    applied = {t["name"]: t.get("map", {}) for t in go["apply"]["types"]}
    lines = []
    for name in reachable(go):
        shape = defs.get(name, {})
        if name in defs and not any(f["type"].startswith("json") for f in go["types"][name]):
            ours = {f["json"] for f in go["types"][name]}
            theirs = set(shape.get("properties", {}))
            if ours != theirs and not name.rsplit(".", 1)[1].startswith("JSONSchemaPropsOr"):
                sys.exit(f"{name}: sources disagree on the fields: {ours ^ theirs}")
        atomic = "a" if shape.get("x-kubernetes-map-type") == "atomic" else ""
        lines.append(["T", name, atomic, " ".join(kinds_of(name, go))])
        apply = {f["name"]: f for f in applied.get(name, {}).get("fields", [])}
        for field in sorted(go["types"][name], key=lambda f: f["json"]):
            json_name = field["json"]
            prop = shape.get("properties", {}).get(json_name, {})
            required = json_name in shape.get("required", [])
            lines.append(["F", *row(name, field, prop, apply.get(json_name, {}), required)])
    OUT.write_text("".join("\t".join(line).rstrip("\t") + "\n" for line in lines))
    types = sum(line[0] == "T" for line in lines)
    print(f"{OUT}: {types} types, {len(lines) - types} fields, {OUT.stat().st_size} bytes")


main()
