"""What one ModelInferRequest asks for."""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.calls import GenerateCall

TEXT_OUTPUT = "text_output"

# Every output and its datatype, in the order of responses.
OUTPUTS = {
    TEXT_OUTPUT: "BYTES",
    "output_ids": "INT32",
    "output_log_probs": "FP32",
    "logprobs": "BYTES",  # JSON of each token
    "finish_reason": "BYTES",
    "num_input_tokens": "UINT32",
    "num_output_tokens": "UINT32",
    "num_cached_tokens": "UINT32",
    "num_cached_media": "UINT32",
    "seed": "UINT64",
}


@dataclass(frozen=True, slots=True)
class AskedInference:
    """`renamed` has, by the path of a field of the call, what the client calls it."""

    call: GenerateCall
    id: str
    outputs: tuple[str, ...]  # in this order
    is_streamed: bool
    is_raw: bool  # so are the outputs
    echo: str  # goes before the answer's text
    renamed: tuple[tuple[str, str], ...]
