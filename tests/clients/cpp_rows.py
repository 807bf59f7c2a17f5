"""Requests as a program in C++ that sets each of their fields by the setter of the stubs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

_PROGRAM = """\
#include <cstdlib>
#include <iostream>
#include <string>
#include "elasticmm/v1/inference.pb.h"
int main(int, char** words) {
  elasticmm::v1::GenerateRequest request;
  switch (std::atoi(words[1])) {
CASES
  }
  return request.SerializeToOstream(&std::cout) ? 0 : 1;
}
"""


def program_of(requests: Sequence[Message]) -> str:
    """Writes the request of the number that it is told to its output, as on the wire."""
    cases = (
        f"case {number}: {{ " + " ".join(_statements("request", request)) + " break; }"
        for number, request in enumerate(requests)
    )
    return _PROGRAM.replace("CASES", "\n".join(cases))


def _statements(target: str, message: Message) -> Iterator[str]:
    for each, value in message.ListFields():
        name = each.name
        if isinstance(value, Mapping):
            yield from (f"(*{target}.mutable_{name}())[{key}u] = {inner};" for key, inner in value.items())
        elif not each.is_repeated:
            yield from _set(target, each, value, f"set_{name}", f"mutable_{name}")
        else:
            for inner in value:
                yield from _set(target, each, inner, f"add_{name}", f"add_{name}")


def _set(target: str, each: FieldDescriptor, value: Any, setter: str, opener: str) -> Iterator[str]:
    if each.message_type is None:
        yield f"{target}.{setter}({_literal(each, value)});"
        return
    yield f"{{ auto& {target}_ = *{target}.{opener}();"
    yield from _statements(f"{target}_", value)
    yield "}"


def _literal(each: FieldDescriptor, value: Any) -> str:
    if each.enum_type is not None:
        return f"elasticmm::v1::{each.enum_type.values_by_number[value].name}"
    if isinstance(value, bytes):
        escapes = "".join(rf"\x{byte:02x}" for byte in value)
        return f'std::string("{escapes}", {len(value)})'
    if isinstance(value, bool | str):
        return json.dumps(value)
    return f"{value}ull" if isinstance(value, int) and value > 0 else str(value)
