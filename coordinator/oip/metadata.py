"""What the server and its model say of themselves."""

from __future__ import annotations

from coordinator.oip.asked import OUTPUTS
from coordinator.oip.content import CONTENT_INPUTS
from coordinator.oip.conversion import VERSION
from coordinator.oip.options import OPTIONS
from elasticmm.oip import open_inference_pb2 as pb

SERVER = "elasticmm"
_EXTENSIONS = ("parameters",)
_PER_TOKEN = ("output_ids", "output_log_probs", "logprobs")


def server_metadata(version: str) -> pb.ServerMetadataResponse:
    return pb.ServerMetadataResponse(name=SERVER, version=version, extensions=_EXTENSIONS)


def model_metadata(model: str) -> pb.ModelMetadataResponse:
    """Every input and output that is known."""
    response = pb.ModelMetadataResponse(name=model, versions=[VERSION], platform=SERVER)
    for name, (datatype, size) in CONTENT_INPUTS.items():
        response.inputs.add(name=name, datatype=datatype, shape=[size])
    for name, option in OPTIONS.items():
        response.inputs.add(name=name, datatype=option.datatype, shape=[-1 if option.kind.is_list else 1])
    for name, datatype in OUTPUTS.items():
        response.outputs.add(name=name, datatype=datatype, shape=[-1 if name in _PER_TOKEN else 1])
    return response
