"""What the server and its model say of themselves: every input and output that is known, in two forms."""

from __future__ import annotations

from collections.abc import Iterator

from coordinator.oip.asked import OUTPUTS
from coordinator.oip.content import CONTENT_INPUTS
from coordinator.oip.conversion import VERSION
from coordinator.oip.options import DEFAULT_PRIORITY_LEVEL, OPTIONS, PRIORITY_LEVELS
from coordinator.oip.tensors import BYTES
from elasticmm.oip import open_inference_pb2 as pb

SERVER = "elasticmm"
# Of Triton's published ones, those that are served: raw contents, request parameters, the parameters priority
# and timeout, ModelConfig.
_EXTENSIONS = ("binary_tensor_data", "parameters", "schedule_policy", "model_configuration")
_PER_TOKEN = ("output_ids", "output_log_probs", "logprobs")


def server_metadata(version: str) -> pb.ServerMetadataResponse:
    return pb.ServerMetadataResponse(name=SERVER, version=version, extensions=_EXTENSIONS)


def model_metadata(model: str) -> pb.ModelMetadataResponse:
    response = pb.ModelMetadataResponse(name=model, versions=[VERSION], platform=SERVER)
    for name, datatype, shape in _inputs():
        response.inputs.add(name=name, datatype=datatype, shape=[shape])
    for name, datatype, shape in _outputs():
        response.outputs.add(name=name, datatype=datatype, shape=[shape])
    return response


def model_config(model: str, context_tokens: int) -> pb.ModelConfigResponse:
    """A request needs one of several inputs, so each by itself is optional."""
    response = pb.ModelConfigResponse()
    config = response.config
    config.name, config.platform, config.backend = model, SERVER, SERVER
    config.version_policy.specific.versions.append(int(VERSION))
    for name, datatype, shape in _inputs():
        config.input.add(name=name, data_type=_data_type(datatype), dims=[shape], optional=True)
    for name, datatype, shape in _outputs():
        config.output.add(name=name, data_type=_data_type(datatype), dims=[shape])
    config.dynamic_batching.priority_levels = PRIORITY_LEVELS
    config.dynamic_batching.default_priority_level = DEFAULT_PRIORITY_LEVEL
    config.model_transaction_policy.decoupled = True
    config.parameters["context_tokens"].string_value = str(context_tokens)
    return response


def _inputs() -> Iterator[tuple[str, str, int]]:
    """Name, datatype and number of elements, -1 being any."""
    yield from ((name, datatype, size) for name, (datatype, size) in CONTENT_INPUTS.items())
    for name, option in OPTIONS.items():
        yield name, option.datatype, -1 if option.kind.is_list else 1


def _outputs() -> Iterator[tuple[str, str, int]]:
    for name, datatype in OUTPUTS.items():
        yield name, datatype, -1 if name in _PER_TOKEN else 1


def _data_type(datatype: str) -> pb.DataType.ValueType:
    """Triton's configurations call BYTES otherwise."""
    return pb.DataType.Value("TYPE_STRING" if datatype == BYTES else f"TYPE_{datatype}")
