"""The process of a stage server as a whole."""

from __future__ import annotations

import asyncio
import json
import sys

from coordinator.config import CoordinatorConfig
from coordinator.server import Coordinator
from tests.coordinator.conftest import CHECKPOINT, TOKEN

SCRIPT = """
import gc, json, os, signal, sys
from pathlib import Path
from stage_servers.config import StageConfig
from stage_servers.server import run

def ready(instance_id):
    said = {"instance": instance_id, "threshold": gc.get_threshold(), "kept": gc.get_freeze_count()}
    print(json.dumps(said), flush=True)
    os.kill(os.getpid(), signal.SIGTERM)

model, coordinator, token = sys.argv[1:]
run(StageConfig(Path(model), coordinator, token, kv_blocks=16, embedding_blocks=16), on_ready=ready)
"""


async def test_once_ready_nothing_of_its_start_is_looked_through_again() -> None:
    """Full collections of what torch and transformers bring stopped the engine for half a second."""
    config = CoordinatorConfig(model_path=CHECKPOINT, cluster_token=TOKEN, start_gateway=False)
    coordinator = Coordinator(config)
    await coordinator.start()
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", SCRIPT, str(CHECKPOINT), f"127.0.0.1:{coordinator.port}", TOKEN),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(100):
            output, errors = await process.communicate()
    finally:
        await coordinator.stop()
    assert process.returncode == 0, errors.decode()
    said = json.loads(output)
    assert said["instance"]
    assert said["kept"] > 100_000
    assert said["threshold"][2] > 1_000_000
