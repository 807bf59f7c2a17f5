"""The protocol's tensors as tuples of Python values, from and to both of their wire forms."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from coordinator.checks.counts import MAX_VALUES, check_count
from coordinator.errors import InvalidFieldError
from elasticmm.oip import open_inference_pb2 as pb

Element = bool | int | float | bytes
InputMessage = pb.ModelInferRequest.InferInputTensor

BYTES = "BYTES"
BOOL = "BOOL"
INTS = ("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64")
FLOATS = ("FP16", "FP32", "FP64")

_MAX_DIMENSIONS = 8
_LENGTH = struct.Struct("<I")  # before each element of raw BYTES
# struct's letter of one raw element, little endian; BYTES have no fixed size.
_CODES = {
    BOOL: "?",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "FP16": "e",
    "FP32": "f",
    "FP64": "d",
}
# The field of InferTensorContents; FP16 is raw only.
_CONTENTS = {
    BOOL: "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    BYTES: "bytes_contents",
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """One dimension as far as we are concerned: a shape's leading ones say nothing here."""

    name: str
    datatype: str
    values: tuple[Element, ...]


def to_tensors(request: pb.ModelInferRequest) -> list[Tensor]:
    """Every input, in order. Raises InvalidFieldError with the name of the input that is malformed."""
    raws = request.raw_input_contents
    if not raws:
        return [_to_tensor(each, None) for each in request.inputs]
    if len(raws) != len(request.inputs):
        raise InvalidFieldError("raw_input_contents", f"{len(raws)} for {len(request.inputs)} inputs")
    return [_to_tensor(each, raw) for each, raw in zip(request.inputs, raws, strict=True)]


def add_output(response: pb.ModelInferResponse, tensor: Tensor, *, is_raw: bool) -> None:
    """Appends a tensor of one dimension; all outputs of a response have the same form."""
    output = response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=[len(tensor.values)])
    if is_raw:
        response.raw_output_contents.append(_to_raw(tensor))
    else:
        getattr(output.contents, _CONTENTS[tensor.datatype]).extend(tensor.values)


def _to_tensor(message: InputMessage, raw: bytes | None) -> Tensor:
    if message.datatype != BYTES and message.datatype not in _CODES:
        raise InvalidFieldError(message.name, f"{message.datatype!r} is no datatype that is known here")
    _check_parameters(message, raw)
    if raw is None:
        values = _from_contents(message)
    else:
        if message.HasField("contents"):
            raise InvalidFieldError(message.name, "has both raw and typed contents")
        values = _from_raw(message.name, message.datatype, raw)
    check_count(message.name, len(values), MAX_VALUES)
    _check_shape(message, len(values))
    return Tensor(message.name, message.datatype, values)


def _check_parameters(message: InputMessage, raw: bytes | None) -> None:
    """`binary_data_size` says again what the raw contents' length says; others have no meaning here."""
    for key in sorted(message.parameters):
        if key != "binary_data_size":
            raise InvalidFieldError(f"{message.name}.{key}", "is no parameter of an input that is known here")
        size = message.parameters[key].int64_param
        if raw is None or size != len(raw):
            raise InvalidFieldError(f"{message.name}.{key}", f"{size} is not the size of its raw contents")


def _check_shape(message: InputMessage, num_values: int) -> None:
    shape = list(message.shape)
    if not 1 <= len(shape) <= _MAX_DIMENSIONS:
        raise InvalidFieldError(message.name, f"{len(shape)} dimensions, not 1 to {_MAX_DIMENSIONS}")
    if any(size < 0 for size in shape) or any(size != 1 for size in shape[:-1]):
        raise InvalidFieldError(message.name, f"shape {shape} is neither [n] nor [1, n]")
    if math.prod(shape) != num_values:
        raise InvalidFieldError(message.name, f"shape {shape}, but {num_values} elements")


def _from_contents(message: InputMessage) -> tuple[Element, ...]:
    wanted = _CONTENTS.get(message.datatype)
    for descriptor, _ in message.contents.ListFields():
        if descriptor.name != wanted:
            raise InvalidFieldError(message.name, f"{message.datatype} in {descriptor.name}")
    return () if wanted is None else tuple(getattr(message.contents, wanted))


def _from_raw(name: str, datatype: str, raw: bytes) -> tuple[Element, ...]:
    if datatype == BYTES:
        return _split(name, raw)
    code = _CODES[datatype]
    count, rest = divmod(len(raw), struct.calcsize(f"<{code}"))
    if rest:
        raise InvalidFieldError(name, f"{len(raw)} raw bytes are no whole number of {datatype}")
    return struct.unpack(f"<{count}{code}", raw)


def _split(name: str, raw: bytes) -> tuple[bytes, ...]:
    """Raw BYTES: each element after its length."""
    elements = []
    at = 0
    while at < len(raw):
        start = at + _LENGTH.size
        if start > len(raw):
            raise InvalidFieldError(name, "raw bytes end within a length")
        (size,) = _LENGTH.unpack_from(raw, at)
        at = start + size
        if at > len(raw):
            raise InvalidFieldError(name, f"an element of {size} bytes reaches past the raw bytes' end")
        elements.append(raw[start:at])
    return tuple(elements)


def _to_raw(tensor: Tensor) -> bytes:
    if tensor.datatype == BYTES:
        return _join([value for value in tensor.values if isinstance(value, bytes)])
    return struct.pack(f"<{len(tensor.values)}{_CODES[tensor.datatype]}", *tensor.values)


def _join(elements: Sequence[bytes]) -> bytes:
    return b"".join(_LENGTH.pack(len(each)) + each for each in elements)
