"""Requests of the Open Inference Protocol, odd ones and broken ones."""

from __future__ import annotations

import struct
from typing import Any

from hypothesis import strategies as st

from coordinator.oip.asked import OUTPUTS
from coordinator.oip.content import CONTENT_INPUTS
from coordinator.oip.options import OPTIONS
from elasticmm.oip import open_inference_pb2 as pb
from tests.coordinator.fuzz.calls import JSON_TEXTS, PICTURE, URLS
from tests.coordinator.fuzz.messages import TEXTS, Told, any_message
from tests.coordinator.oip.conftest import infer_request

_DATATYPES = ("BOOL", "INT8", "INT32", "INT64", "UINT32", "UINT64", "FP16", "FP32", "FP64", "BYTES")
_CONVERSATIONS = (
    '[{"role": "user", "content": "x"}]',
    '[{"role": "user", "content": [{"type": "image"}]}]',
    '[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,x"}}]}]',
    '[{"role": 1}]',
    '{"a": 1, "a": 2}',
    '{"max_tokens": 1e300}',
    '{"seed": 1}',
)
_SAID = st.sampled_from(_CONVERSATIONS) | TEXTS | JSON_TEXTS
_BYTES = _SAID.map(str.encode) | URLS.map(str.encode) | st.just(PICTURE) | st.binary(max_size=9)
_NAMES = st.sampled_from([*CONTENT_INPUTS, *OPTIONS])
FIELDS = Told(
    {
        "inference.ModelInferRequest.model_name": st.sampled_from(["checkpoint", "other"]),
        "inference.ModelInferRequest.model_version": st.just("1"),
        "inference.ModelInferRequest.ParametersEntry.key": _NAMES,
        "inference.ModelInferRequest.InferInputTensor.name": _NAMES,
        "inference.ModelInferRequest.InferInputTensor.datatype": st.sampled_from(_DATATYPES),
        "inference.ModelInferRequest.InferInputTensor.shape": st.integers(0, 2),
        "inference.ModelInferRequest.InferRequestedOutputTensor.name": st.sampled_from(list(OUTPUTS)),
        "inference.InferTensorContents.bytes_contents": _BYTES,
        "inference.InferTensorContents.int_contents": st.integers(1, 6),
        "inference.InferParameter.int64_param": st.integers(1, 6),
        "inference.InferParameter.string_param": _SAID,
        "inference.ModelReadyRequest.name": st.sampled_from(["checkpoint", "other"]),
        "inference.ModelMetadataRequest.name": st.sampled_from(["checkpoint", "other"]),
    }
)


@st.composite
def tensors(draw: st.DrawFn) -> pb.ModelInferRequest:
    """Of an option or an input, its contents raw and often of the wrong size."""
    datatype = draw(st.sampled_from(_DATATYPES))
    tensor: Any = pb.ModelInferRequest.InferInputTensor(
        name=draw(_NAMES),
        datatype=datatype,
        shape=draw(st.lists(st.sampled_from([1, 1, 2, 0, -1, 2**62]), max_size=9)),
    )
    element = draw(_BYTES)
    raw = struct.pack("<I", draw(st.sampled_from([len(element), len(element) + 1, 2**32 - 1]))) + element
    request = pb.ModelInferRequest(
        inputs=[tensor], raw_input_contents=[draw(st.just(raw) | st.binary(max_size=9))]
    )
    text = b"hello"
    if draw(st.booleans()):
        request.inputs.add(name="text_input", datatype="BYTES", shape=[1])
        request.raw_input_contents.append(struct.pack("<I", len(text)) + text)
    return request


INFERS = st.one_of(
    any_message(pb.ModelInferRequest, FIELDS, infer_request(max_tokens=4, seed=1)),
    any_message(pb.ModelInferRequest, FIELDS),
    tensors(),
)
METADATA = st.one_of(
    *(
        st.tuples(st.just(kind.DESCRIPTOR.name.removesuffix("Request")), any_message(kind, FIELDS))
        for kind in (
            pb.ServerLiveRequest,
            pb.ServerReadyRequest,
            pb.ModelReadyRequest,
            pb.ServerMetadataRequest,
            pb.ModelMetadataRequest,
            pb.ModelConfigRequest,
        )
    )
)
