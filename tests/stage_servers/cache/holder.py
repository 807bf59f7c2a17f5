"""An instance in a process of its own, to be killed.

`python -m tests.stage_servers.cache.holder FOLDER TRANSPORT CLUSTER`. Answers a prompt, says where
it is, and of each prefix that it is asked for it pushes one half of the planes.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from kv_transfer.outgoing import Outgoing
from kv_transfer.transports import shm
from stage_servers.cache.settings import CacheSettings
from stage_servers.engine.loader import load_model
from tests.stage_servers.cache.peers import ask, provide, question_of
from tests.stage_servers.part import running


def stop_half_way() -> None:
    shm.LITTLE_BYTES = 0  # what is pushed leaves at once
    push = Outgoing.push

    def half(outgoing: Outgoing, first: int, count: int, planes: range, blocks: Sequence[int]) -> None:
        push(outgoing, first, count, range(len(planes) // 2), blocks)

    async def never(outgoing: Outgoing, *_: object) -> None:
        print(json.dumps({"lease": outgoing.lease_id}), flush=True)
        await asyncio.Event().wait()

    Outgoing.push, Outgoing.commit = half, never  # type: ignore[method-assign]


async def main(folder: Path, transport: str, cluster: str) -> None:
    model = load_model(folder)
    question = question_of(model)
    spec = ask(model, "a", question)
    async with running(
        model,
        "a",
        kv_blocks=64,
        epoch=1,
        transport=transport,
        cache=CacheSettings(),
        cluster=cluster if transport == "shm" else "",
    ) as part:
        part.instance.prefill(spec, part.address)
        provide(part, spec, question)
        await part.has_ended(spec)
        stop_half_way()
        print(json.dumps(asdict(part.address)), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), *sys.argv[2:]))
