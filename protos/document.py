"""Writes the reference part of docs/wire-api.md from the schemas' comments; --check fails if it is stale."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc_tools
from google.protobuf import descriptor_pb2 as dpb

ROOT = Path(__file__).resolve().parent
PAGE = ROOT.parent / "docs" / "wire-api.md"
WELL_KNOWN = Path(grpc_tools.__file__).parent / "_proto"
PACKAGE = ".elasticmm.v1."
SERVICES = ("Inference", "Media", "Admin")  # what is not between our own processes
MARK = "<!-- From here on made from the protos' comments by `make docs`. -->\n"

_FIELD = dpb.FieldDescriptorProto
_SCALARS = {number: name.removeprefix("TYPE_").lower() for name, number in _FIELD.Type.items()}


@dataclass(frozen=True, slots=True)
class Schemas:
    """All that the public services speak of, by name, and the comments on it."""

    services: dict[str, dpb.ServiceDescriptorProto] = field(default_factory=dict)
    messages: dict[str, dpb.DescriptorProto] = field(default_factory=dict)
    enums: dict[str, dpb.EnumDescriptorProto] = field(default_factory=dict)
    comments: dict[str, str] = field(default_factory=dict)  # by "Message" or "Message.field"


def load() -> Schemas:
    """Every schema of the project."""
    schemas = Schemas()
    for file in _parse().file:
        _take_file(schemas, file)
    return schemas


def public_names(schemas: Schemas) -> list[str]:
    """Messages and enums that the public services reach, in the order in which they are met."""
    found: dict[str, None] = {}
    for service in SERVICES:
        for method in schemas.services[service].method:
            for name in (method.input_type, method.output_type):
                _reach(schemas, name.removeprefix(PACKAGE), found)
    return list(found)


def uncommented(schemas: Schemas) -> list[str]:
    """Public names that no comment explains."""
    names = [*SERVICES, *public_names(schemas)]
    for service in SERVICES:
        names += [f"{service}.{method.name}" for method in schemas.services[service].method]
    for name in public_names(schemas):
        names += [f"{name}.{part}" for part in _parts(schemas, name)]
    return [name for name in names if not schemas.comments.get(name)]


def reference(schemas: Schemas) -> str:
    """The part of the page below MARK."""
    lines: list[str] = [MARK]
    for service in SERVICES:
        lines += _service_lines(schemas, service)
    lines += ["## Messages", ""]
    for name in public_names(schemas):
        lines += _message_lines(schemas, name) if name in schemas.messages else _enum_lines(schemas, name)
    return "\n".join(lines).rstrip() + "\n"


def page(schemas: Schemas) -> str:
    """The whole page: what is written by hand, and the reference."""
    by_hand, mark, _ = PAGE.read_text(encoding="utf-8").partition(MARK)
    if not mark:
        raise SystemExit(f"{PAGE}: has no line {MARK.strip()!r}")
    return by_hand + reference(schemas)


def _parse() -> dpb.FileDescriptorSet:
    files = sorted(str(path) for path in (ROOT / "elasticmm").rglob("*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "set"
        options = [f"--descriptor_set_out={out}", "--include_source_info"]
        # A process of its own: the compiler's C++ aborts in some that have loaded other C++ before.
        command = [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            f"-I{ROOT}",
            f"-I{WELL_KNOWN}",
            *options,
            *files,
        ]
        if subprocess.run(command, check=False).returncode != 0:
            raise SystemExit("protoc failed")
        return dpb.FileDescriptorSet.FromString(out.read_bytes())


def _take_file(schemas: Schemas, file: dpb.FileDescriptorProto) -> None:
    schemas.services.update((each.name, each) for each in file.service)
    schemas.messages.update((each.name, each) for each in file.message_type)
    schemas.enums.update((each.name, each) for each in file.enum_type)
    for location in file.source_code_info.location:
        name = _name_at(file, list(location.path))
        if name is not None and location.leading_comments:
            lines = location.leading_comments.splitlines()
            schemas.comments[name] = "\n".join(line.strip() for line in lines)


def _name_at(file: dpb.FileDescriptorProto, path: list[int]) -> str | None:
    """What a path of SourceCodeInfo stands for; None for what is not documented by itself."""
    parents = {4: file.message_type, 5: file.enum_type, 6: file.service}
    if len(path) not in (2, 4) or path[0] not in parents:
        return None
    parent = parents[path[0]][path[1]]
    if len(path) == 2:
        return str(parent.name)
    parts = {4: {2: "field"}, 5: {2: "value"}, 6: {2: "method"}}[path[0]].get(path[2])
    return None if parts is None else f"{parent.name}.{getattr(parent, parts)[path[3]].name}"


def _reach(schemas: Schemas, name: str, found: dict[str, None]) -> None:
    if name in found or name not in (schemas.messages | schemas.enums):
        return
    found[name] = None
    if name in schemas.messages:
        for each in schemas.messages[name].field:
            _reach(schemas, each.type_name.removeprefix(PACKAGE), found)


def _parts(schemas: Schemas, name: str) -> list[str]:
    if name in schemas.messages:
        return [each.name for each in schemas.messages[name].field]
    return [each.name for each in schemas.enums[name].value]


def _service_lines(schemas: Schemas, name: str) -> Iterator[str]:
    yield from (f"## elasticmm.v1.{name}", "", schemas.comments.get(name, ""), "")
    for method in schemas.services[name].method:
        asks, answers = (
            f"{'stream ' if is_stream else ''}{_link(type_name)}"
            for is_stream, type_name in (
                (method.client_streaming, method.input_type),
                (method.server_streaming, method.output_type),
            )
        )
        yield from (f"### {name}.{method.name}", "", f"{asks} → {answers}", "")
        yield from (schemas.comments.get(f"{name}.{method.name}", ""), "")


def _message_lines(schemas: Schemas, name: str) -> Iterator[str]:
    message = schemas.messages[name]
    yield from (f"### {name}", "", schemas.comments.get(name, ""), "")
    if not message.field:
        return
    yield from ("| field | type | |", "|---|---|---|")
    for each in message.field:
        comment = schemas.comments.get(f"{name}.{each.name}", "")
        yield f"| {each.number} `{each.name}` | {_type(message, each)} | {_cell(comment)} |"
    yield ""


def _enum_lines(schemas: Schemas, name: str) -> Iterator[str]:
    yield from (f"### {name}", "", schemas.comments.get(name, ""), "", "| value | |", "|---|---|")
    for each in schemas.enums[name].value:
        yield f"| {each.number} `{each.name}` | {_cell(schemas.comments.get(f'{name}.{each.name}', ''))} |"
    yield ""


def _type(message: dpb.DescriptorProto, each: dpb.FieldDescriptorProto) -> str:
    entry = next(
        (nested for nested in message.nested_type if each.type_name.endswith(f".{nested.name}")), None
    )
    if entry is not None:
        key, value = (
            _link(part.type_name) if part.type_name else _SCALARS[part.type] for part in entry.field
        )
        return f"map of {key} to {value}"
    kind = _link(each.type_name) if each.type_name else _SCALARS[each.type]
    if each.label == _FIELD.LABEL_REPEATED:
        return f"repeated {kind}"
    if each.proto3_optional:
        return f"optional {kind}"
    if each.HasField("oneof_index"):
        return f"{kind}, one of `{message.oneof_decl[each.oneof_index].name}`"
    return kind


def _link(type_name: str) -> str:
    if not type_name.startswith(PACKAGE):
        return f"`{type_name.removeprefix('.')}`"
    name = type_name.removeprefix(PACKAGE)
    return f"[{name}](#{name.lower()})"


def _cell(comment: str) -> str:
    return comment.strip().replace("\n", " ").replace("|", "\\|")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail if the page is stale")
    is_check = parser.parse_args().check
    schemas = load()
    for name in uncommented(schemas):
        print(f"no comment: {name}", file=sys.stderr)
    fresh = page(schemas)
    is_stale = PAGE.read_text(encoding="utf-8") != fresh
    if not is_check:
        PAGE.write_text(fresh, encoding="utf-8")
    elif is_stale:
        print(f"stale: {PAGE.name} (run make docs)", file=sys.stderr)
    return 1 if uncommented(schemas) or (is_check and is_stale) else 0


if __name__ == "__main__":
    sys.exit(main())
