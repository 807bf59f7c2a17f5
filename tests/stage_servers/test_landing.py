"""A format is compiled beside the engine, which nobody waits for but who asked for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from coordinator.prompt.tokenizer import load_tokenizer
from core.families import load_family
from core.grammars import CompiledFormat, Grammars
from core.output_format import FormatKind, OutputFormat
from core.sequence import SequenceSpec
from stage_servers.engine.model import Model
from tests.exactness import make_question, make_spec
from tests.stage_servers.part import Part, running, until

SLOW = OutputFormat(FormatKind.REGEX, "[ab]{24}")


class Compiling:
    """In the place of Grammars.compile: notes threads and tenants, and holds SLOW up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.threads: set[str] = set()
        self.order: list[str] = []
        self.may_end = threading.Event()
        compile_ = Grammars.compile

        def hold(grammars: Grammars, form: OutputFormat, tenant: str = "") -> CompiledFormat:
            self.threads.add(threading.current_thread().name)
            self.order.append(tenant)
            if form == SLOW:
                assert self.may_end.wait(60)
            return compile_(grammars, form, tenant)

        monkeypatch.setattr(Grammars, "compile", hold)


@pytest.fixture
def compiling(monkeypatch: pytest.MonkeyPatch) -> Compiling:
    return Compiling(monkeypatch)


@pytest.fixture
async def parts(model: Model) -> AsyncIterator[tuple[Part, Part]]:
    async with AsyncExitStack() as stack:
        prefill, decode = [
            await stack.enter_async_context(running(model, name, kv_blocks=64, epoch=epoch))
            for epoch, name in enumerate(("prefill", "decode"), 1)
        ]
        yield prefill, decode


def ask(model: Model, name: str, form: OutputFormat | None, tenant: str = "t") -> SequenceSpec:
    family = load_family(model.path)
    spec = make_spec(family, make_question(family, 4), name, max_tokens=24)
    return replace(spec, format=form, tenant=tenant, stop_token_ids=family.eos_token_ids)


def text_of(part: Part, model: Model, spec: SequenceSpec) -> str:
    return load_tokenizer(model.path).decode([token for _, token in part.tokens[spec.key]])


def begin(parts: tuple[Part, Part], spec: SequenceSpec) -> None:
    """Prefill at the first, decode at the second."""
    prefill, decode = parts
    decode.instance.decode(spec)
    prefill.instance.prefill(spec, decode.address)


async def idle(*parts: Part) -> None:
    await until(lambda: all(part.is_free and not part.instance._decoding for part in parts))
    for part in parts:
        await part.instance.check_idle()


async def landed(parts: tuple[Part, Part], compiling: Compiling) -> SequenceSpec:
    """One whose KV is there before its format: the prefill has compiled it, the decoder has not yet."""
    spec = ask(parts[0].engine._model, "slow", SLOW)  # type: ignore[arg-type]
    compiling.may_end.set()
    await parts[0].instance._preparation.compile(spec)
    compiling.may_end.clear()
    begin(parts, spec)
    await until(lambda: len(parts[1].instance._landing))
    return spec


async def test_its_kv_waits_for_it_and_holds_nobody_up(
    parts: tuple[Part, Part], model: Model, compiling: Compiling
) -> None:
    decode = parts[1]
    slow, plain = await landed(parts, compiling), ask(model, "plain", None)
    begin(parts, plain)
    await until(lambda: decode.num_tokens(plain) == 23)
    assert not decode.num_tokens(slow)
    with pytest.raises(AssertionError, match="landed"):
        await decode.instance.check_idle()
    compiling.may_end.set()
    await until(lambda: decode.num_tokens(slow))
    await idle(*parts)
    assert set(text_of(decode, model, slow)) <= set("ab")
    assert compiling.threads
    assert "engine" not in compiling.threads


async def test_who_goes_meanwhile_leaves_no_blocks(parts: tuple[Part, Part], compiling: Compiling) -> None:
    prefill, decode = parts
    spec = await landed(parts, compiling)
    assert not decode.is_free
    await decode.instance.cancel(spec.key)
    compiling.may_end.set()
    await prefill.instance.cancel(spec.key)
    await idle(*parts)
    assert not decode.tokens


async def test_tenants_take_turns(parts: tuple[Part, Part], model: Model, compiling: Compiling) -> None:
    """Those of a tenant with many do not come before another's first one."""
    one = parts[0]
    specs = [ask(model, "first", SLOW, "a")]
    specs += [ask(model, f"a{n}", OutputFormat(FormatKind.REGEX, f"[ab]{{{n + 1}}}"), "a") for n in range(5)]
    specs += [ask(model, "b", OutputFormat(FormatKind.REGEX, "b{9}"), "b")]
    for spec in specs:
        one.instance.prefill(spec, one.address)
    await until(lambda: compiling.order)
    await asyncio.sleep(0)
    compiling.may_end.set()
    await until(lambda: all(one.num_tokens(spec) for spec in specs))
    assert compiling.order == ["a", "b", "a", "a", "a", "a", "a"]
    await idle(one)
