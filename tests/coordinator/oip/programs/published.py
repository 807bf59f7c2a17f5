"""Prints the messages and methods of someone else's stubs of the protocol: MODULE as argument."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path


def load(package: str) -> object:
    """Its stubs of the messages, without the rest of the package: that needs much else."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        print(f"{package} is not installed", file=sys.stderr)
        sys.exit(77)
    folder, name = {
        "tritonclient": ("grpc", "service_pb2"),
        "kserve": ("protocol/grpc", "grpc_predict_v2_pb2"),
    }[package]
    if package == "tritonclient":
        return importlib.import_module(f"{package}.{folder}.{name}")
    path = Path(found.origin).parent / folder / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def messages_of(descriptor: object) -> dict[str, list[list[object]]]:
    """By full name: number, name, type, whether repeated, message type and oneof of every field."""
    fields = [
        [
            field.number,
            field.name,
            field.type,
            field.is_repeated,
            field.message_type.full_name if field.message_type else "",
            field.containing_oneof.name if field.containing_oneof else "",
        ]
        for field in descriptor.fields
    ]
    nested = {}
    for each in descriptor.nested_types:
        nested |= messages_of(each)
    return {descriptor.full_name: sorted(fields), **nested}


def enums_of(file: object) -> dict[str, dict[str, int]]:
    return {
        name: {value.name: value.number for value in each.values}
        for name, each in file.enum_types_by_name.items()
    }


def describe(module: object) -> dict[str, object]:
    """`imported` are messages, and `enums` are, of the files that it imports too."""
    messages, imported, enums = {}, {}, enums_of(module.DESCRIPTOR)
    for each in module.DESCRIPTOR.message_types_by_name.values():
        messages |= messages_of(each)
    for file in module.DESCRIPTOR.dependencies:
        enums |= enums_of(file)
        for each in file.message_types_by_name.values():
            imported |= messages_of(each)
    service = module.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    methods = {
        method.name: [
            method.input_type.full_name,
            method.output_type.full_name,
            method.client_streaming,
            method.server_streaming,
        ]
        for method in service.methods
    }
    return {
        "service": service.full_name,
        "messages": messages,
        "methods": methods,
        "imported": imported,
        "enums": enums,
    }


if __name__ == "__main__":
    print(json.dumps(describe(load(sys.argv[1]))))
