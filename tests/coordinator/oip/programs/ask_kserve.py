"""Asks the coordinator at ADDRESS with kserve's client, typed and raw; prints what came."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

try:
    import numpy as np
    from kserve import InferenceGRPCClient, InferInput, InferRequest
    from kserve.protocol.infer_type import RequestedOutput
except ImportError as error:
    print(f"kserve: {error}", file=sys.stderr)
    sys.exit(77)


def request(model: str, picture: bytes, *, is_raw: bool) -> InferRequest:
    text = InferInput("text_input", [1], "BYTES")
    image = InferInput("image", [1], "BYTES")
    tokens = InferInput("max_tokens", [1], "INT32")
    for tensor, value, kind in ((text, b"hello", object), (image, picture, object), (tokens, 6, np.int32)):
        if is_raw:
            tensor.set_data_from_numpy(np.array([value], dtype=kind), binary_data=True)
        else:
            tensor.data = [value]
    return InferRequest(
        model_name=model,
        request_id="a",
        infer_inputs=[text, image, tokens],
        parameters={"seed": 7, "temperature": "0.5"},
        request_outputs=[
            RequestedOutput(name) for name in ("text_output", "finish_reason", "num_output_tokens")
        ],
    )


async def main(address: str, model: str, picture: bytes) -> None:
    async with InferenceGRPCClient(address) as client:
        seen = {
            "live": await client.is_server_live(),
            "ready": await client.is_server_ready(),
            "model_ready": await client.is_model_ready(model),
        }
        for form in ("typed", "raw"):
            answer = await client.infer(request(model, picture, is_raw=form == "raw"))
            seen[form] = {each.name: _texts(each.as_numpy().tolist()) for each in answer.outputs}
            seen[f"{form}_id"] = answer.id
    print(json.dumps(seen))


def _texts(values: list[object]) -> list[object]:
    return [value.decode() if isinstance(value, bytes) else value for value in values]


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3]).read_bytes()))
