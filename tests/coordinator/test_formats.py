"""Formats of many tenants are compiled in turns, once each, and those that are compiled wait for nobody."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import grpc
import pytest

from coordinator import formats as formats_file
from coordinator.errors import InvalidFieldError, OverloadedError
from coordinator.formats import Formats
from core.grammars import FormatError
from core.output_format import FormatKind, OutputFormat
from elasticmm.v1 import inference_pb2 as pb
from tests.coordinator.conftest import Bench, ask_for, until


class Compiler:
    """In the place of Grammars: compiles one format each time that it may, and notes the order."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.has_begun = threading.Semaphore(0)
        self.may_end = threading.Semaphore(0)

    def recall(self, form: OutputFormat) -> bool:
        return form.text in self.done

    def matcher(self, form: OutputFormat) -> None:
        self.has_begun.release()
        assert self.may_end.acquire(timeout=60)
        if form.text.startswith("bad"):
            raise FormatError("no good")
        if form.text.startswith("worse"):
            raise RuntimeError("a fault")
        self.done.append(form.text)


@pytest.fixture
def compiler() -> Iterator[Compiler]:
    compiler = Compiler()
    yield compiler
    compiler.may_end.release(99)


@pytest.fixture
def formats(compiler: Compiler) -> Formats:
    return Formats(compiler)  # type: ignore[arg-type]


def form(text: str) -> OutputFormat:
    return OutputFormat(FormatKind.REGEX, text)


async def checks(formats: Formats, *words: str) -> list[asyncio.Task[None]]:
    """Each word is a format of the tenant of its first letter; all have been asked for when this returns."""
    tasks = [asyncio.create_task(formats.check(word[0], form(word))) for word in words]
    await asyncio.sleep(0)
    return tasks


async def begun(compiler: Compiler) -> None:
    assert await asyncio.to_thread(compiler.has_begun.acquire, timeout=60)


async def test_a_tenant_waits_for_one_format_of_another(compiler: Compiler, formats: Formats) -> None:
    tasks = await checks(formats, *(f"a{number}" for number in range(9)))
    await begun(compiler)
    tasks += await checks(formats, "b0", "b1")
    compiler.may_end.release(99)
    await asyncio.gather(*tasks)
    assert compiler.done[:5] == ["a0", "a1", "b0", "a2", "b1"]
    assert formats.num_waiting == 0


async def test_what_is_compiled_waits_for_nobody(compiler: Compiler, formats: Formats) -> None:
    compiler.done.append("b0")
    tasks = await checks(formats, "a0", "a1")
    await begun(compiler)
    await formats.check("b", form("b0"))
    assert compiler.done == ["b0"]
    compiler.may_end.release(99)
    await asyncio.gather(*tasks)


async def test_what_many_want_is_compiled_once(compiler: Compiler, formats: Formats) -> None:
    """Whether it is under way, or waits behind others of its own tenant."""
    same = [asyncio.create_task(formats.check(tenant, form("x"))) for tenant in "aab"]
    await asyncio.sleep(0)
    await begun(compiler)
    same += [asyncio.create_task(formats.check("c", form("x")))]
    others = await checks(formats, "d0", "d1")
    same += [asyncio.create_task(formats.check(tenant, form("d1"))) for tenant in "de"]
    await asyncio.sleep(0)
    assert formats.num_waiting == 4  # x of b, d0, d1 of d and of e
    compiler.may_end.release(99)
    await asyncio.gather(*same, *others)
    assert sorted(compiler.done) == ["d0", "d1", "x"]


async def test_a_tenants_queue_is_bounded(
    compiler: Compiler, formats: Formats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats_file, "MOST_PER_TENANT", 2)
    tasks = await checks(formats, "a0")
    await begun(compiler)
    tasks += await checks(formats, "a1", "a2", "a2", "b1")
    with pytest.raises(OverloadedError, match="2 formats of this tenant wait") as caught:
        await formats.check("a", form("a3"))
    assert (caught.value.quota, caught.value.retry_after_s) == ("formats_per_tenant", 1.0)
    compiler.may_end.release(99)
    await asyncio.gather(*tasks)
    await formats.check("a", form("a3"))


async def test_nobody_is_waited_for_who_has_gone(compiler: Compiler, formats: Formats) -> None:
    tasks = await checks(formats, "a0", "a1", "a1", "b0")
    await begun(compiler)
    for task in (tasks[0], tasks[1], tasks[3]):
        task.cancel()
    await asyncio.gather(tasks[0], tasks[1], tasks[3], return_exceptions=True)
    assert formats.num_waiting == 1
    compiler.may_end.release(99)
    await tasks[2]
    assert compiler.done == ["a0", "a1"]


async def test_what_is_wrong_is_told_to_all_who_asked(compiler: Compiler, formats: Formats) -> None:
    compiler.may_end.release(99)
    tasks = await checks(formats, "bad", "bad", "worse", "a")
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(error) for error in errors] == [InvalidFieldError] * 2 + [RuntimeError, type(None)]
    assert str(errors[0]) == "format.regex: no good"
    await formats.check("b", form("b"))


async def test_at_the_door_it_is_a_status(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats_file, "MOST_PER_TENANT", 0)
    request = ask_for(tenant="a")
    request.format.CopyFrom(pb.OutputFormat(regex="[ab]c"))
    failure = await bench.fail(request)
    assert (failure.code, failure.quota) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "formats_per_tenant")
    monkeypatch.undo()
    assert (await bench.ask(request)).finished
    monkeypatch.setattr(formats_file, "MOST_PER_TENANT", 0)
    assert (await bench.ask(request)).finished  # it is compiled
    await until(lambda: not bench.num_requests)
