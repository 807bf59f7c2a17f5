"""Requests over gRPC, by the Python client."""

from __future__ import annotations

from cli.load.sending import Answered
from cli.load.workload import PlannedRequest
from elasticmm_client import AsyncClient, user_message


class GrpcAsker:
    """Implements Asker. The client is the caller's."""

    def __init__(self, client: AsyncClient, timeout_s: float) -> None:
        self._client = client
        self._timeout_s = timeout_s

    async def connect(self) -> None:
        await self._client.model()

    async def ask(self, request: PlannedRequest) -> Answered:
        stream = self._client.generate(
            [user_message(request.text, *request.images)],
            max_tokens=request.output_tokens,
            ignore_eos=True,
            timeout_s=self._timeout_s,
        )
        result = await stream.result()
        return Answered(
            ttft_s=None if result.ttft_ms is None else result.ttft_ms / 1e3,
            tpot_s=None if result.tpot_ms is None else result.tpot_ms / 1e3,
            prompt_tokens=result.usage.prompt_tokens,
            media_tokens=result.usage.media_tokens,
            cached_tokens=result.usage.cached_tokens,
            cached_media=result.usage.cached_media,
            output_tokens=result.usage.completion_tokens,
            stage_s=tuple((span.stage, (span.end_ms - span.start_ms) / 1e3) for span in result.stages),
        )
