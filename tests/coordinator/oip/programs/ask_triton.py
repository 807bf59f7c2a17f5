"""Asks the coordinator at ADDRESS with tritonclient as it is; prints what came."""

from __future__ import annotations

import json
import queue
import sys
from pathlib import Path

try:
    import numpy as np
    import tritonclient.grpc as triton
    from tritonclient.utils import InferenceServerException
except (ImportError, RuntimeError) as error:
    print(f"tritonclient: {error}", file=sys.stderr)
    sys.exit(77)


def tensor(name: str, datatype: str, values: list[object]) -> triton.InferInput:
    given = triton.InferInput(name, [len(values)], datatype)
    kind = np.object_ if datatype == "BYTES" else triton.triton_to_np_dtype(datatype)
    given.set_data_from_numpy(np.array(values, dtype=kind))
    return given


def told(result: triton.InferResult) -> dict[str, list[object]]:
    """Every output, bytes as text."""
    outputs = {}
    for each in result.get_response().outputs:
        values = result.as_numpy(each.name).tolist()
        outputs[each.name] = [value.decode() if isinstance(value, bytes) else value for value in values]
    return outputs


def once(client: triton.InferenceServerClient, model: str, picture: bytes) -> dict[str, list[object]]:
    inputs = [
        tensor("text_input", "BYTES", [b"what is this?"]),
        tensor("image", "BYTES", [picture]),
        tensor("max_tokens", "INT32", [6]),
        tensor("temperature", "FP32", [0.5]),
        tensor("random_seed", "UINT64", [7]),
    ]
    names = ["text_output", "finish_reason", "num_output_tokens", "output_ids", "seed"]
    outputs = [triton.InferRequestedOutput(name) for name in names]
    return told(client.infer(model, inputs, outputs=outputs, timeout=60_000_000, priority=2, request_id="a"))


def streamed(client: triton.InferenceServerClient, model: str) -> list[dict[str, object]]:
    """One stream: a request in tokens, one that is refused."""
    came: queue.Queue[tuple[object, object]] = queue.Queue()
    client.start_stream(callback=lambda result, error: came.put((result, error)))
    sampling = json.dumps({"max_tokens": "5", "temperature": "0.1", "seed": 3})
    for request_id, parameters in (("good", {"return_finish_reason": True}), ("bad", {"beam_width": 4})):
        inputs = [
            tensor("text_input", "BYTES", [b"hello"]),
            tensor("stream", "BOOL", [True]),
            tensor("sampling_parameters", "BYTES", [sampling.encode()]),
        ]
        client.async_stream_infer(
            model, inputs, request_id=request_id, enable_empty_final_response=True, parameters=parameters
        )
    client.stop_stream()
    return [described(*came.get_nowait()) for _ in range(came.qsize())]


def described(result: triton.InferResult | None, error: InferenceServerException | None) -> dict[str, object]:
    if result is None:
        return {"error": error.message()}
    response = result.get_response()
    is_last = response.parameters["triton_final_response"].bool_param
    return {"id": response.id, "is_last": is_last, "outputs": told(result)}


def refused(client: triton.InferenceServerClient, model: str) -> list[str]:
    try:
        client.infer(model, [tensor("text_input", "BYTES", [b"a"]), tensor("top_p", "FP32", [2.0])])
    except InferenceServerException as error:
        return [error.status(), error.message()]
    return []


def main(address: str, model: str, picture: str) -> None:
    with triton.InferenceServerClient(address) as client:
        metadata = client.get_model_metadata(model, as_json=True)
        seen = {
            "live": client.is_server_live(),
            "ready": client.is_server_ready(),
            "model_ready": client.is_model_ready(model, "1"),
            "other_ready": client.is_model_ready("another"),
            "server": client.get_server_metadata(as_json=True)["name"],
            "extensions": client.get_server_metadata(as_json=True)["extensions"],
            "config": client.get_model_config(model, as_json=True)["config"],
            "inputs": [each["name"] for each in metadata["inputs"]],
            "once": once(client, model, Path(picture).read_bytes()),
            "streamed": streamed(client, model),
            "refused": refused(client, model),
        }
    print(json.dumps(seen))


if __name__ == "__main__":
    main(*sys.argv[1:])
