"""A request's events as responses: one at the end, or one per event."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from coordinator.events import AcceptedEvent, Event, FinishedEvent, TokensEvent
from coordinator.oip.asked import OUTPUTS, TEXT_OUTPUT, AskedInference
from coordinator.oip.tensors import Element, Tensor, add_output
from core.sequence import TokenLogprobs
from elasticmm.oip import open_inference_pb2 as pb

FINAL = "triton_final_response"


@dataclass(slots=True)
class Piece:
    """What has come of an answer and is in no response yet."""

    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)

    def add(self, event: TokensEvent) -> None:
        self.text += event.text
        self.token_ids += event.token_ids
        self.logprobs += event.logprobs


class Answer:
    """One request's; events go in, responses come out."""

    def __init__(self, asked: AskedInference, model: str, version: str) -> None:
        self._asked = asked
        self._model = model
        self._version = version
        self._piece = Piece(text=asked.echo)
        self._accepted: AcceptedEvent | None = None

    def push(self, event: Event) -> pb.ModelInferResponse | None:
        """The response that the event completes, if it does; the last event completes one always."""
        match event:
            case AcceptedEvent():
                self._accepted = event
                return None
            case TokensEvent():
                self._piece.add(event)
                return self._respond(None) if self._asked.is_streamed else None
            case FinishedEvent():
                return self._respond(event)

    def _respond(self, finished: FinishedEvent | None) -> pb.ModelInferResponse:
        piece, self._piece = self._piece, Piece()
        assert self._accepted is not None, "the first event of every stream"
        response = pb.ModelInferResponse(
            model_name=self._model, model_version=self._version, id=self._asked.id
        )
        response.parameters["request_id"].string_param = self._accepted.request_id
        response.parameters[FINAL].bool_param = finished is not None
        values = _values_of(piece)
        if finished is not None:
            values |= _last_values(self._accepted, finished)
        for name in self._asked.outputs:
            if name in values:
                add_output(response, Tensor(name, OUTPUTS[name], values[name]), is_raw=self._asked.is_raw)
        return response


def _values_of(piece: Piece) -> dict[str, tuple[Element, ...]]:
    """What every response may tell."""
    return {
        TEXT_OUTPUT: (piece.text.encode(),),
        "output_ids": tuple(piece.token_ids),
        "output_log_probs": tuple(each.logprob for each in piece.logprobs),
        "logprobs": tuple(map(_described, piece.logprobs)),
    }


def _last_values(accepted: AcceptedEvent, finished: FinishedEvent) -> dict[str, tuple[Element, ...]]:
    """What only the last response tells."""
    return {
        "finish_reason": (finished.reason.value.encode(),),
        "num_input_tokens": (finished.usage.prompt_tokens,),
        "num_output_tokens": (finished.usage.completion_tokens,),
        "num_cached_tokens": (finished.usage.cached_tokens,),
        "num_cached_media": (finished.usage.cached_media,),
        "seed": (accepted.seed,),
    }


def _described(logprobs: TokenLogprobs) -> bytes:
    """JSON, since alternatives differ in number from token to token."""
    top = [{"token_id": token_id, "logprob": logprob} for token_id, logprob in logprobs.top]
    return json.dumps({"logprob": logprobs.logprob, "top": top}).encode()
