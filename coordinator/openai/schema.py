"""What may stand in the bodies of both calls. Fields that are not here are refused by name."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_CHOICES = 128  # of one call


class Strict(BaseModel):
    """Unknown fields and wrong types are errors; null is "no opinion"."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class StreamOptions(Strict):
    include_usage: bool | None = None
    continuous_usage_stats: Annotated[
        bool | None, Field(description="Usage so far in every chunk, as in vLLM.")
    ] = None


class JsonSchema(Strict):
    name: str | None = None
    description: str | None = None
    json_schema: Annotated[dict[str, Any], Field(alias="schema")]
    strict: Annotated[bool | None, Field(description="The schema is always kept to.")] = None


class TextFormat(Strict):
    type: Literal["text"]


class JsonObjectFormat(Strict):
    type: Literal["json_object"]


class JsonSchemaFormat(Strict):
    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]


class CommonRequest(Strict):
    """What chats and completions have in common."""

    model: str | None = None
    n: Annotated[int | None, Field(ge=1, le=MAX_CHOICES)] = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    seed: Annotated[int | None, Field(ge=-(2**63), lt=2**64)] = None
    stop: str | list[str] | None = None
    response_format: ResponseFormat | None = None
    # Without effect here, and so harmless.
    user: str | None = None
    metadata: dict[str, str] | None = None
    store: Literal[False] | None = None
    service_tier: Literal["auto", "default"] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    # Not OpenAI's; vLLM's names where it has them.
    top_k: Annotated[int | None, Field(ge=-1, lt=2**31, description="0 and -1 keep all tokens.")] = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    stop_token_ids: list[Annotated[int, Field(ge=0, lt=2**32)]] | None = None
    ignore_eos: bool | None = None
    priority: Annotated[int | None, Field(ge=-(2**31), lt=2**31)] = None
    cache_salt: str | None = None
    cache_scope: Literal["none", "tenant", "cluster"] | None = None
    tenant: str | None = None
    request_id: str | None = None
    timeout: Annotated[float | None, Field(description="Seconds after which the call is given up.")] = None


TokenId = Annotated[int, Field(ge=0, lt=2**32)]


class CompletionRequest(CommonRequest):
    """The body of POST /v1/completions."""

    prompt: str | list[str] | list[TokenId] | list[list[TokenId]]
    logprobs: Annotated[int | None, Field(ge=0, lt=2**31)] = None
    best_of: Annotated[int | None, Field(description="Only as many as `n`.")] = None
    echo: Literal[False] | None = None
    suffix: None = None
