"""Raw and typed tensors say the same, and malformed ones are refused by the input's name."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.errors import InvalidFieldError
from coordinator.oip.tensors import FLOATS, INTS, Tensor, add_output, to_tensors
from elasticmm.oip import open_inference_pb2 as pb


def sized(name: str) -> st.SearchStrategy[Any]:
    """Elements of a datatype of whole numbers."""
    bits = int(name.lstrip("UINT"))
    return (
        st.integers(0, 2**bits - 1)
        if name[0] == "U"
        else st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    )


ELEMENTS = {name: sized(name) for name in INTS}
ELEMENTS |= {name: st.floats(width=int(name[2:]), allow_nan=False) for name in FLOATS}
ELEMENTS |= {"BOOL": st.booleans(), "BYTES": st.binary(max_size=40)}


@st.composite
def tensors(draw: st.DrawFn, datatypes: list[str]) -> Tensor:
    datatype = draw(st.sampled_from(datatypes))
    return Tensor("t", datatype, tuple(draw(st.lists(ELEMENTS[datatype], max_size=5))))


def sent(tensor: Tensor, *, is_raw: bool) -> pb.ModelInferRequest:
    """A response's output as a request's input: both have the same form."""
    response = pb.ModelInferResponse()
    add_output(response, tensor, is_raw=is_raw)
    output = response.outputs[0]
    given_input = pb.ModelInferRequest.InferInputTensor(
        name=output.name, datatype=output.datatype, shape=output.shape
    )
    if not is_raw:
        given_input.contents.CopyFrom(output.contents)
    return pb.ModelInferRequest(inputs=[given_input], raw_input_contents=response.raw_output_contents)


@given(tensors(list(ELEMENTS)))
def test_raw(tensor: Tensor) -> None:
    assert to_tensors(sent(tensor, is_raw=True)) == [tensor]


@given(tensors([name for name in ELEMENTS if name != "FP16"]))
def test_typed(tensor: Tensor) -> None:
    assert to_tensors(sent(tensor, is_raw=False)) == [tensor]


def one(datatype: str, shape: list[int], raw: bytes | None = None, **contents: Any) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(raw_input_contents=[] if raw is None else [raw])
    tensor = request.inputs.add(name="t", datatype=datatype, shape=shape)
    if contents:
        tensor.contents.CopyFrom(pb.InferTensorContents(**contents))
    return request


def test_raw_bytes_are_length_and_element() -> None:
    request = one("BYTES", [1, 2], b"\x02\0\0\0hi\0\0\0\0")
    assert to_tensors(request)[0].values == (b"hi", b"")


MALFORMED = {
    "datatype": one("BF16", [1], b"\0\0"),
    "no dimension": one("INT32", [], b"\0\0\0\0"),
    "nine dimensions": one("INT32", [1] * 9, b"\0\0\0\0"),
    "matrix": one("BOOL", [2, 2], b"\0\0\0\0"),
    "negative": one("BOOL", [-1], b"\0"),
    "fewer elements": one("INT32", [2], b"\0\0\0\0"),
    "vast shape": one("INT32", [2**62], b"\0\0\0\0"),
    "cut number": one("INT64", [1], b"\0\0\0\0"),
    "cut length": one("BYTES", [1], b"\x01\0\0"),
    "cut element": one("BYTES", [1], b"\x05\0\0\0hi"),
    "both": one("BYTES", [1], b"\0\0\0\0", bytes_contents=[b""]),
    "other contents": one("BYTES", [1], int_contents=[1]),
    "two contents": one("BOOL", [1], bool_contents=[True], int_contents=[1]),
    "typed FP16": one("FP16", [1], fp32_contents=[1.0]),
    "nothing": one("INT32", [1]),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed(case: str) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        to_tensors(MALFORMED[case])
    assert caught.value.field == "t"


def test_number_of_raw_contents() -> None:
    request = one("BOOL", [1], b"\0")
    request.raw_input_contents.append(b"\0")
    with pytest.raises(InvalidFieldError, match="raw_input_contents: 2 for 1 inputs"):
        to_tensors(request)


@pytest.mark.parametrize(("key", "size"), [("shared_memory_region", 1), ("binary_data_size", 2)])
def test_parameters_of_inputs(key: str, size: int) -> None:
    request = one("BOOL", [1], b"\0")
    request.inputs[0].parameters[key].int64_param = size
    with pytest.raises(InvalidFieldError) as caught:
        to_tensors(request)
    assert caught.value.field == f"t.{key}"
