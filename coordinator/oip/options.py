"""What a request may ask for besides its text: one table of names, and what each may hold.

The names are those of Triton's vLLM and TensorRT-LLM backends, so that their clients work unchanged; where
these differ, both are known.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from coordinator.oip.tensors import BOOL, BYTES, FLOATS, INTS


class Kind(Enum):
    """What an option holds."""

    FLAG = auto()
    INT = auto()
    FLOAT = auto()
    TEXT = auto()
    TEXTS = auto()  # any number of them
    IDS = auto()  # whole numbers, any number of them
    BIASES = auto()  # a JSON object: numbers by token id

    @property
    def is_list(self) -> bool:
        return self in (Kind.TEXTS, Kind.IDS)

    @property
    def datatypes(self) -> tuple[str, ...]:
        """Of a tensor that holds such an option."""
        return _DATATYPES[self]


_DATATYPES = {
    Kind.FLAG: (BOOL,),
    Kind.INT: INTS,
    Kind.FLOAT: FLOATS,
    Kind.TEXT: (BYTES,),
    Kind.TEXTS: (BYTES,),
    Kind.IDS: INTS,
    Kind.BIASES: (BYTES,),
}

_UINT32 = (0, 2**32 - 1)
_UINT64 = (0, 2**64 - 1)
_MICROSECONDS = (1, 2**63 - 1)

# Triton's levels of priority: 1 goes first, 0 is the default one.
PRIORITY_LEVELS = 21
DEFAULT_PRIORITY_LEVEL = 11


@dataclass(frozen=True, slots=True)
class Option:
    kind: Kind
    datatype: str  # of its tensor, as ModelMetadata tells
    same_as: str | None = None  # the option that this is another name of
    bounds: tuple[int, int] = _UINT32  # of whole numbers, both included


_FLAG = Option(Kind.FLAG, BOOL)
_FLOAT = Option(Kind.FLOAT, "FP32")
_TEXT = Option(Kind.TEXT, BYTES)

OPTIONS = {
    "max_tokens": Option(Kind.INT, "INT32"),
    "temperature": _FLOAT,
    "top_p": _FLOAT,
    "top_k": Option(Kind.INT, "INT32"),
    "min_p": _FLOAT,
    "presence_penalty": _FLOAT,
    "frequency_penalty": _FLOAT,
    "repetition_penalty": _FLOAT,
    "seed": Option(Kind.INT, "UINT64", bounds=_UINT64),
    "random_seed": Option(Kind.INT, "UINT64", same_as="seed", bounds=_UINT64),
    "logprobs": Option(Kind.INT, "INT32"),
    "logit_bias": Option(Kind.BIASES, BYTES),
    "guided_decoding_guide_type": _TEXT,
    "guided_decoding_guide": _TEXT,
    "tools": _TEXT,
    "stop": Option(Kind.TEXTS, BYTES),
    "stop_words": Option(Kind.TEXTS, BYTES, same_as="stop"),
    "stop_token_ids": Option(Kind.IDS, "INT32"),
    "ignore_eos": _FLAG,
    "stream": _FLAG,
    "exclude_input_in_output": _FLAG,
    "return_finish_reason": _FLAG,
    "return_num_input_tokens": _FLAG,
    "return_num_output_tokens": _FLAG,
    "return_log_probs": _FLAG,
    "binary_data_output": _FLAG,
    "triton_enable_empty_final_response": _FLAG,
    "request_id": _TEXT,
    "tenant": _TEXT,
    "cache_scope": _TEXT,
    "cache_salt": _TEXT,
    "timeout": Option(Kind.INT, "INT64", bounds=_MICROSECONDS),
    "priority": Option(Kind.INT, "UINT64", bounds=(0, PRIORITY_LEVELS)),
}
