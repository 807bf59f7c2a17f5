"""A client's call from the door to its last event."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from functools import partial
from typing import Protocol

from coordinator.access.guard import Guard
from coordinator.admission import Admission
from coordinator.cache.request_keys import make_keys
from coordinator.calls import GenerateCall, ImageSource
from coordinator.checks.call import DoorLimits, check_call, fill_sampling, fit_max_tokens
from coordinator.checks.inputs import check_prompt_tokens
from coordinator.cluster import Cluster
from coordinator.conversations import conversation_of
from coordinator.dispatcher import Dispatcher
from coordinator.errors import DeadlinePassedError, InvalidFieldError, UnavailableError
from coordinator.events import AcceptedEvent, Emit
from coordinator.fanout import RequestOutput
from coordinator.formats import Formats
from coordinator.listening.turns import Turns
from coordinator.model import ServedModel
from coordinator.observer import CallEnd, RequestObserver
from coordinator.prompt.builder import PromptBuilder
from coordinator.prompt.tokenizer import PromptTokenizer
from coordinator.request import PlacedMedia, Request
from coordinator.resuming.answers import Answers
from coordinator.stage_messages import MediaItem
from coordinator.tenants.settings import DEFAULT_TENANT
from coordinator.tenants.tenancy import Tenancy
from core.cache.scope import salt_of
from core.clock import Clock
from core.families import MediaLayout
from core.ids import new_request_id
from core.sequence import CacheUse
from core.stages import ModalityGroup


class MediaKeeper(Protocol):
    """The media gateway as the door uses it."""

    async def resolve(self, request_id: str, tenant: str, source: ImageSource, field: str) -> MediaItem:
        """Makes the item ready and leases it to the request; errors name `field`.

        By digest only items that the tenant has brought are found.
        """
        ...

    def release(self, request_id: str) -> None:
        """Ends the request's leases, some time soon."""
        ...


class Door:
    """Checks, prepares and follows every Generate call."""

    def __init__(
        self,
        *,
        model: ServedModel,
        prompts: PromptBuilder,
        formats: Formats,
        media: MediaKeeper,
        cluster: Cluster,
        dispatcher: Dispatcher,
        admission: Admission,
        tenancy: Tenancy,
        guard: Guard,
        answers: Answers,
        limits: DoorLimits,
        clock: Clock,
        observer: RequestObserver,
    ) -> None:
        self._model = model
        self._prompts = prompts
        self._formats = formats
        self._media = media
        self._cluster = cluster
        self._dispatcher = dispatcher
        self._admission = admission
        self._tenancy = tenancy
        self._guard = guard
        self._answers = answers
        self._limits = limits
        self._clock = clock
        self._observer = observer
        self._turns = Turns()
        self._num_preparing = 0
        self._is_closed = False

    async def generate(self, call: GenerateCall, emit: Emit) -> None:
        """Hands every event to `emit`, in order. Raises ServiceError.

        Cancelling the task stops the work, but not that of a resumable call.
        """
        if not call.request_id:
            call = replace(call, request_id=new_request_id())
        try:
            await self._generate(call, emit)
        except Exception as error:
            self._observer.on_unserved(_call_end(call, error))
            raise
        except asyncio.CancelledError:
            self._observer.on_unserved(_call_end(call, None))
            raise

    async def _generate(self, call: GenerateCall, emit: Emit) -> None:
        if self._is_closed:
            raise UnavailableError("the cluster is shutting down")
        check_call(call, self._limits)
        call = self._with_tenancy(call)
        request_id = call.request_id
        self._answers.make_free(request_id, call.tenant)
        if call.resumable_s:
            run = partial(self._serve, call, request_id)
            await self._answers.begin(request_id, call.tenant, call.resumable_s, run, emit)
        else:
            await self._serve(call, request_id, emit)

    async def resume(self, request_id: str, tenant: str, next_index: int, emit: Emit) -> None:
        """Goes on with a resumable call's answer; see Answers.resume for what is raised."""
        await self._answers.resume(request_id, tenant, next_index, emit)

    def cancel(self, request_id: str, tenant: str) -> None:
        """Stops a resumable call. Raises NotFoundError."""
        self._answers.cancel(request_id, tenant)

    async def _serve(self, call: GenerateCall, request_id: str, emit: Emit) -> None:
        has_media = bool(_image_sources(call))
        self._cluster.check_can_serve(has_media)
        with self._admission.enter(request_id, self.num_waiting):
            try:
                async with asyncio.timeout(call.deadline_s) as deadline:
                    await self._run(call, request_id, emit)
            except TimeoutError as error:
                if not deadline.expired():
                    raise
                raise DeadlinePassedError(f"deadline of {call.deadline_s:g} s passed") from error
            finally:
                if has_media:
                    self._media.release(request_id)

    def close(self) -> None:
        """No new requests from now on."""
        self._is_closed = True

    @property
    def tokenizer(self) -> PromptTokenizer:
        return self._prompts.tokenizer

    @property
    def num_waiting(self) -> int:
        """Calls whose work on an instance has not begun: being prepared, or queued."""
        return self._num_preparing + self._dispatcher.num_waiting

    @property
    def num_open(self) -> int:
        """Calls that have not had their last event."""
        return len(self._admission)

    async def _run(self, call: GenerateCall, request_id: str, emit: Emit) -> None:
        request = await self._prepare(call, request_id)
        self._dispatcher.submit(request)
        try:
            await emit(
                AcceptedEvent(request_id, self._model.name, request.sampling.seed, len(request.prompt))
            )
            stream = request.output.stream
            while (event := await (stream.next(1) if call.resumable_s else stream.next())) is not None:
                await emit(event)
        finally:
            self._dispatcher.cancel(request)

    def _with_tenancy(self, call: GenerateCall) -> GenerateCall:
        """With a tenant that the caller may name and a cache scope that it may have.

        Raises NotAllowedError, UnauthenticatedError where a door did not ask who calls.
        """
        tenant = self._guard.tenant_of(call.principal, call.tenant)
        return replace(call, tenant=tenant, cache_scope=self._tenancy.scope_of(tenant, call.cache_scope))

    async def _prepare(self, call: GenerateCall, request_id: str) -> Request:
        self._num_preparing += 1
        try:
            return await self._make_request(call, request_id)
        finally:
            self._num_preparing -= 1

    async def _make_request(self, call: GenerateCall, request_id: str) -> Request:
        arrival_s, arrival_ns = self._clock.now_s(), time.time_ns()
        sources = _image_sources(call)
        fields = [field for _, field in sources]
        token_ids, items = await self._prepare_inputs(call, request_id, sources)
        layouts = [self._layout(item, *source) for item, source in zip(items, sources, strict=True)]
        digests = [item.digest for item in items]
        try:
            prompt, spans = self._model.family.expand_placeholders(
                token_ids, list(zip(digests, layouts, strict=True))
            )
        except ValueError as error:
            raise InvalidFieldError("messages", str(error)) from error
        request = self._build(
            call,
            request_id=request_id,
            arrival_s=arrival_s,
            arrival_ns=arrival_ns,
            prompt=prompt,
            media=tuple(map(PlacedMedia, items, spans, fields)),
        )
        if request.cache is not None:
            request.keys = await make_keys(self._model.family.fingerprint, request.cache, prompt, spans)
        return request

    def _build(
        self,
        call: GenerateCall,
        *,
        request_id: str,
        arrival_s: float,
        arrival_ns: int,
        prompt: tuple[int, ...],
        media: tuple[PlacedMedia, ...],
    ) -> Request:
        capacity = self._dispatcher.capacity()
        media_tokens = [item.span.num_tokens for item in media]
        max_tokens = fit_max_tokens(
            call.sampling.max_tokens,
            len(prompt),
            media_tokens,
            self._model.context_tokens,
            capacity,
            field="messages" if call.prompt is None else "prompt",
        )
        eos = frozenset() if call.stop.ignore_eos else self._model.family.eos_token_ids
        stop_ids = eos | frozenset(call.stop.token_ids)
        scope = call.cache_scope
        assert scope is not None, "every call passes _with_tenancy"
        salt = salt_of(scope, call.tenant, call.cache_salt)
        return Request(
            request_id=request_id,
            arrival_s=arrival_s,
            arrival_ns=arrival_ns,
            prompt=prompt,
            sampling=fill_sampling(call.sampling, max_tokens),
            stop_token_ids=stop_ids,
            output=RequestOutput(
                self.tokenizer.decode, call.stop.strings, stop_ids, self.tokenizer.whole_text, self._turns
            ),
            reserve_tokens=self._dispatcher.expected_tokens(max_tokens),
            media=media,
            priority=call.priority,
            tenant=call.tenant,
            cache=None if salt is None else CacheUse(salt, call.tenant),
            scope=scope,
            format=call.format,
            trace=call.trace,
            conversation=conversation_of(call),
        )

    async def _prepare_inputs(
        self, call: GenerateCall, request_id: str, sources: list[tuple[ImageSource, str]]
    ) -> tuple[list[int], list[MediaItem]]:
        """The prompt, the format's check and all media at once; the first that fails ends the others."""
        if call.format is None and not sources:
            return await self._build_prompt(call), []
        try:
            async with asyncio.TaskGroup() as group:
                prompt = group.create_task(self._build_prompt(call))
                if call.format is not None:
                    group.create_task(self._formats.check(call.tenant, call.format))
                items = [
                    group.create_task(self._media.resolve(request_id, call.tenant, *source))
                    for source in sources
                ]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return prompt.result(), [item.result() for item in items]

    async def _build_prompt(self, call: GenerateCall) -> list[int]:
        if call.prompt is None:
            return await self._prompts.build(call.messages, call.tools)
        if call.prompt.token_ids is not None:
            return list(call.prompt.token_ids)
        token_ids = await self._prompts.build_raw(call.prompt.text or "")
        check_prompt_tokens(token_ids, "prompt.text", self._limits)
        return token_ids

    def _layout(self, item: MediaItem, source: ImageSource, field: str) -> MediaLayout:
        try:
            return self._model.family.layout(item.width, item.height, source.max_pixels)
        except ValueError as error:
            raise InvalidFieldError(field, str(error)) from error


def _call_end(call: GenerateCall, error: Exception | None) -> CallEnd:
    group = ModalityGroup.MULTIMODAL if _image_sources(call) else ModalityGroup.TEXT
    return CallEnd(call.tenant or DEFAULT_TENANT, group, call.priority, error, call.request_id)


def _image_sources(call: GenerateCall) -> list[tuple[ImageSource, str]]:
    """Every picture with its path in the message, in order."""
    return [
        (part.image, f"messages[{i}].parts[{j}].image")
        for i, message in enumerate(call.messages)
        for j, part in enumerate(message.parts)
        if part.image is not None
    ]
