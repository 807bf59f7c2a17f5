"""Set-ups to measure: clusters started here, or one that runs elsewhere."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.endpoint import Endpoint
from cli.launch.events import LaunchEvent
from cli.launch.plan import LaunchPlan, new_cluster_id
from cli.launch.supervisor import Supervisor
from cli.state import StateDir

_NUMBERS = frozenset({"num_instances", "threads", "kv_blocks", "embedding_blocks", "chunk_tokens"})
_WORDS = frozenset({"dtype", "attention", "transport", "policy", "prompt_order", "encode_order", "encoding"})
_SWITCHES = frozenset({"prefix_cache"})  # "on" or "off"


@dataclass(frozen=True, slots=True)
class Setup:
    """A topology and its settings, by the name it was given on the command line."""

    name: str
    topology: str
    settings: tuple[tuple[str, Any], ...] = ()


def parse_setup(text: str) -> Setup:
    """From "e1p1d1 transport=grpc threads=1": a topology, then settings of LaunchPlan.

    Raises ValueError naming an unknown setting.
    """
    topology, *words = text.split() or [""]
    return Setup(text, topology, tuple(_parse_setting(word, text) for word in words))


def _parse_setting(word: str, text: str) -> tuple[str, Any]:
    name, _, value = word.partition("=")
    name = {"instances": "num_instances"}.get(name, name)
    if name in _NUMBERS and value.isdigit():
        return name, int(value)
    if name in _WORDS and value:
        return name, value
    if name in _SWITCHES and value in ("on", "off"):
        return name, value == "on"
    known = ", ".join(sorted(_NUMBERS | _WORDS | _SWITCHES))
    raise ValueError(f"setup: {word!r} in {text!r} is none of {known} with a value")


@contextmanager
def running(setup: Setup, base: LaunchPlan) -> Iterator[Endpoint]:
    """Starts the set-up and says how to reach it; ends it afterwards. Raises LaunchError."""
    settings = {"topology": setup.topology, "cluster": new_cluster_id("benchmark"), "num_instances": None}
    plan = dataclasses.replace(base, **(settings | dict(setup.settings)))
    with tempfile.TemporaryDirectory(prefix="elasticmm-") as folder:
        state = StateDir(Path(folder))
        state.acquire()
        supervisor = Supervisor(plan, state)
        try:
            address = supervisor.start(_quiet).address
            yield Endpoint(address, state.token_path.read_text().strip())
        finally:
            supervisor.stop()
            state.release()


def _quiet(_: LaunchEvent) -> None:
    """A set-up that fails raises."""
