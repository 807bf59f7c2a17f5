"""Formats of many tenants are compiled in turns, once each, and those that are compiled wait for nobody."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from core.format_turns import FormatTurns, TooManyFormatsError
from core.grammars import CompiledFormat, FormatError
from core.output_format import FormatKind, OutputFormat


class Compiler:
    """In the place of Grammars: compiles one format each time that it may, and notes the order."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.has_begun = threading.Semaphore(0)
        self.may_end = threading.Semaphore(0)

    def recall(self, form: OutputFormat, tenant: str) -> str | None:
        del tenant
        return form.text if form.text in self.done else None

    def compile(self, form: OutputFormat, tenant: str) -> str:
        del tenant
        self.has_begun.release()
        assert self.may_end.acquire(timeout=60)
        if form.text.startswith("bad"):
            raise FormatError("no good")
        if form.text.startswith("worse"):
            raise RuntimeError("a fault")
        self.done.append(form.text)
        return form.text


@pytest.fixture
def compiler() -> Iterator[Compiler]:
    compiler = Compiler()
    yield compiler
    compiler.may_end.release(99)


@pytest.fixture
def turns(compiler: Compiler) -> FormatTurns:
    return FormatTurns(compiler)  # type: ignore[arg-type]


def form(text: str) -> OutputFormat:
    return OutputFormat(FormatKind.REGEX, text)


async def asked(turns: FormatTurns, *words: str) -> list[asyncio.Task[CompiledFormat]]:
    """Each word is a format of the tenant of its first letter; all have been asked for when this returns."""
    tasks = [asyncio.create_task(turns.compile(word[0], form(word))) for word in words]
    await asyncio.sleep(0)
    return tasks


async def begun(compiler: Compiler) -> None:
    assert await asyncio.to_thread(compiler.has_begun.acquire, timeout=60)


async def test_a_tenant_waits_for_one_format_of_another(compiler: Compiler, turns: FormatTurns) -> None:
    tasks = await asked(turns, *(f"a{number}" for number in range(9)))
    await begun(compiler)
    tasks += await asked(turns, "b0", "b1")
    compiler.may_end.release(99)
    await asyncio.gather(*tasks)
    assert compiler.done[:5] == ["a0", "a1", "b0", "a2", "b1"]
    assert turns.num_waiting == 0


async def test_what_is_compiled_waits_for_nobody(compiler: Compiler, turns: FormatTurns) -> None:
    compiler.done.append("b0")
    tasks = await asked(turns, "a0", "a1")
    await begun(compiler)
    await turns.compile("b", form("b0"))
    assert compiler.done == ["b0"]
    compiler.may_end.release(99)
    await asyncio.gather(*tasks)


async def test_what_many_want_is_compiled_once(compiler: Compiler, turns: FormatTurns) -> None:
    """Whether it is under way, or waits behind others of its own tenant."""
    same = [asyncio.create_task(turns.compile(tenant, form("x"))) for tenant in "aab"]
    await asyncio.sleep(0)
    await begun(compiler)
    same += [asyncio.create_task(turns.compile("c", form("x")))]
    others = await asked(turns, "d0", "d1")
    same += [asyncio.create_task(turns.compile(tenant, form("d1"))) for tenant in "de"]
    await asyncio.sleep(0)
    assert turns.num_waiting == 4  # x of b, d0, d1 of d and of e
    compiler.may_end.release(99)
    await asyncio.gather(*same, *others)
    assert sorted(compiler.done) == ["d0", "d1", "x"]


async def test_a_tenants_queue_is_bounded_where_that_is_asked_for(
    compiler: Compiler, turns: FormatTurns
) -> None:
    tasks = await asked(turns, "a0")
    await begun(compiler)
    tasks += await asked(turns, "a1", "a2", "a2", "b1")
    with pytest.raises(TooManyFormatsError, match="2 formats of this tenant wait"):
        await turns.compile("a", form("a3"), most_waiting=2)
    tasks += await asked(turns, "a4")
    compiler.may_end.release(99)
    await asyncio.gather(*tasks)
    await turns.compile("a", form("a3"), most_waiting=2)


async def test_nobody_is_waited_for_who_has_gone(compiler: Compiler, turns: FormatTurns) -> None:
    tasks = await asked(turns, "a0", "a1", "a1", "b0")
    await begun(compiler)
    for task in (tasks[0], tasks[1], tasks[3]):
        task.cancel()
    await asyncio.gather(tasks[0], tasks[1], tasks[3], return_exceptions=True)
    assert turns.num_waiting == 1
    compiler.may_end.release(99)
    await tasks[2]
    assert compiler.done == ["a0", "a1"]


async def test_what_is_wrong_is_told_to_all_who_asked(compiler: Compiler, turns: FormatTurns) -> None:
    compiler.may_end.release(99)
    tasks = await asked(turns, "bad", "bad", "worse", "a")
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(error) for error in errors] == [FormatError] * 2 + [RuntimeError, str]
    compiled: object = await turns.compile("b", form("b"))
    assert compiled == "b"
