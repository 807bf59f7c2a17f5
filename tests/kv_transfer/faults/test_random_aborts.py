"""500 random aborts among 2,000 transfers, to two processes over several transports at once."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from enum import Enum

import pytest

from kv_transfer.errors import TransferError
from kv_transfer.layout import PayloadKind
from kv_transfer.leases import Key
from kv_transfer.outgoing import Outgoing
from kv_transfer.pool import Pool
from kv_transfer.sender import PeerAddress, Sender
from tests.kv_transfer.child import digest, num_fds, num_threads
from tests.kv_transfer.children import Child, Start, receiving
from tests.kv_transfer.loopback import CLUSTER, HERE, MakeSender, segments

pytestmark = pytest.mark.cluster

NUM_TRANSFERS, NUM_ABORTS = 2000, 500
AT_ONCE = 8  # per pair
PATIENCE_S = 100.0  # on a machine that does much else, too
TOKENS = 10
PAIRS = [(name, end) for name in ("shm", "collective", "grpc") for end in range(2) if name in HERE]


class Step(Enum):
    """At which one is aborted."""

    OPENING = "opening"
    OPENED = "opened"
    HALF = "half"
    WRITTEN = "written"
    COMMITTING = "committing"
    BY_THE_RECEIVER = "by the receiver"  # while it is written
    NONE = "none"


SURELY = {Step.OPENED, Step.HALF, Step.WRITTEN}  # at others the transfer may be faster


@dataclass(frozen=True, slots=True)
class Plan:
    """One transfer: of these source blocks, aborted at this step, some turns of the loop after it began."""

    key: Key
    blocks: list[int]
    step: Step
    turns: int


@dataclass
class End:
    """One child and what was sent to it."""

    child: Child
    address: PeerAddress
    plans: list[Plan]
    committed: list[Plan]


def plans(seed: int) -> list[Plan]:
    draw = random.Random(seed)
    steps = [Step.NONE] * (NUM_TRANSFERS - NUM_ABORTS)
    steps += draw.choices([step for step in Step if step is not Step.NONE], k=NUM_ABORTS)
    draw.shuffle(steps)
    return [
        Plan((f"req-{number}", number % 3), draw.sample(range(12), 2), step, draw.randrange(12))
        for number, step in enumerate(steps)
    ]


async def carry_out(plan: Plan, sender: Sender, end: End, source: Pool) -> None:
    """Raises TransferError, CancelledError where it was aborted."""
    opening = asyncio.create_task(sender.open(end.address, plan.key, PayloadKind.KV, 0, TOKENS, source))
    if plan.step is Step.OPENING:
        await turns(plan)
        opening.cancel()
    outgoing = await opening
    try:
        await write(plan, outgoing, end)
        committing = asyncio.create_task(outgoing.commit(TOKENS))
        if plan.step is Step.COMMITTING:
            await turns(plan)
            committing.cancel()
        await committing
    finally:
        await outgoing.abort("cancelled")


async def write(plan: Plan, outgoing: Outgoing, end: End) -> None:
    for step, planes in ((Step.OPENED, range(3)), (Step.HALF, range(3, 6))):
        if plan.step is step:
            await outgoing.abort("cancelled")
        outgoing.push(0, TOKENS, planes, plan.blocks)
        if plan.step is Step.BY_THE_RECEIVER:
            end.child.tell(f"end {plan.key[0]} {plan.key[1]}")
        await turns(plan)
    if plan.step is Step.WRITTEN:
        await outgoing.abort("cancelled")


async def turns(plan: Plan) -> None:
    for _ in range(plan.turns):
        await asyncio.sleep(0)


async def one_after_the_other(mine: list[Plan], sender: Sender, end: End, source: Pool) -> None:
    while mine:
        plan = mine.pop()
        end.plans.append(plan)
        try:
            await carry_out(plan, sender, end, source)
        except (TransferError, asyncio.CancelledError):
            assert plan.step is not Step.NONE
        else:
            end.committed.append(plan)


async def warm_up(senders: list[Sender], ends: list[End], source: Pool) -> list[dict[str, int]]:
    """Connections and threads are made; what the children hold then."""
    for number, (sender, (_, which)) in enumerate(zip(senders, PAIRS, strict=True)):
        plan = Plan(("warm-up", number), [0, 1], Step.NONE, 0)
        await carry_out(plan, sender, ends[which], source)
        ends[which].committed.append(plan)
        ends[which].plans.append(plan)
    return [await end.child.ask("count") for end in ends]


async def test_random_aborts(start: Start, sender_with: MakeSender, source: Pool) -> None:
    options = {"num_blocks": 24, "checksums": True, "is_quiet": True, "lease_s": PATIENCE_S}
    children = [await receiving(start, CLUSTER, **options) for _ in range(2)]
    ends = [End(child, address, [], []) for child, address in children]
    senders = [
        sender_with(name, instance_id=f"sender-{n}", call_timeout_s=PATIENCE_S)
        for n, (name, _) in enumerate(PAIRS)
    ]
    counted = await warm_up(senders, ends, source)
    before = num_threads(), num_fds()

    todo = plans(seed=3)
    async with asyncio.TaskGroup() as tasks:
        for number, (sender, (_, which)) in enumerate(zip(senders, PAIRS, strict=True)):
            mine = todo[number :: len(PAIRS)]
            for _ in range(AT_ONCE):
                tasks.create_task(one_after_the_other(mine, sender, ends[which], source))

    await asyncio.gather(*(background for sender in senders for background in sender._background))
    for sender in senders:
        sender.check_idle()
    assert num_threads() == before[0]
    assert num_fds() <= before[1]
    for end, count in zip(ends, counted, strict=True):
        await assert_as_before(end.child, count)
        await assert_exact(end, source)
    num_committed = sum(len(end.committed) for end in ends) - len(PAIRS)
    assert NUM_TRANSFERS - NUM_ABORTS <= num_committed < NUM_TRANSFERS - NUM_ABORTS * 2 // 5
    assert [await end.child.finish() for end in ends] == [{"free": 24}] * 2
    assert segments() == []


async def assert_as_before(child: Child, before: dict[str, int]) -> None:
    """When the last leases have gone, it has all blocks, and no more threads and files than it had."""
    async with asyncio.timeout(30):
        while (count := await child.ask("count"))["leases"]:
            await asyncio.sleep(0.05)
    assert (count["free"], count["threads"]) == (before["free"], before["threads"])
    assert count["fds"] <= before["fds"]


async def assert_exact(end: End, source: Pool) -> None:
    """What was committed is there; what was surely aborted is not; all that is there is as it was sent."""
    handed = await end.child.ask("handed")
    wanted = {f"{plan.key[0]} {plan.key[1]}": plan for plan in end.plans}
    for name, arrived in handed.items():
        assert wanted[name].step not in SURELY
        assert arrived == digest(source, wanted[name].blocks, TOKENS)
    assert {f"{plan.key[0]} {plan.key[1]}" for plan in end.committed} <= handed.keys()
