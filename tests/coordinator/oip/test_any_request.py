"""Whatever a request holds, it is converted or refused, and the refusal can be said."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from coordinator.errors import FieldError
from coordinator.oip.content import CONTENT_INPUTS
from coordinator.oip.conversion import to_asked
from coordinator.oip.options import OPTIONS
from coordinator.wire.status import details_of
from elasticmm.oip import open_inference_pb2 as pb

NAMES = st.sampled_from([*CONTENT_INPUTS, *OPTIONS]) | st.text(max_size=5)
DATATYPES = st.sampled_from(["BOOL", "INT8", "INT32", "UINT64", "FP16", "FP32", "BYTES", "", "?"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=5,
)


@st.composite
def parameters(draw: st.DrawFn) -> pb.InferParameter:
    kinds = {
        "bool_param": st.booleans(),
        "int64_param": st.integers(-(2**63), 2**63 - 1),
        "uint64_param": st.integers(0, 2**64 - 1),
        "double_param": st.floats(),
        "string_param": st.text(max_size=8) | JSON.map(str),
    }
    kind = draw(st.sampled_from(list(kinds)))
    return pb.InferParameter(**{kind: draw(kinds[kind])})


@st.composite
def inputs(draw: st.DrawFn) -> pb.ModelInferRequest.InferInputTensor:
    contents = pb.InferTensorContents(
        bool_contents=draw(st.lists(st.booleans(), max_size=2)),
        int_contents=draw(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=2)),
        fp32_contents=draw(st.lists(st.floats(width=32), max_size=2)),
        bytes_contents=draw(st.lists(st.binary(max_size=9), max_size=2)),
    )
    return pb.ModelInferRequest.InferInputTensor(
        name=draw(NAMES),
        datatype=draw(DATATYPES),
        shape=draw(st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 2), max_size=3)),
        contents=draw(st.none() | st.just(contents)),
    )


@st.composite
def requests(draw: st.DrawFn) -> pb.ModelInferRequest:
    return pb.ModelInferRequest(
        model_version=draw(st.sampled_from(["", "1", "x"])),
        parameters=draw(st.dictionaries(NAMES, parameters(), max_size=3)),
        inputs=draw(st.lists(inputs(), max_size=3)),
        raw_input_contents=draw(st.lists(st.binary(max_size=20), max_size=3)),
    )


@given(requests())
def test_any_request(request: pb.ModelInferRequest) -> None:
    assert outcome(request)


def outcome(request: pb.ModelInferRequest) -> object:
    """The outputs that are asked for, or the status's details."""
    try:
        return to_asked(request).outputs
    except FieldError as error:
        return details_of(error)
