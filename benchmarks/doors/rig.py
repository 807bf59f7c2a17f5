"""The processes of a measurement: a coordinator on one core; instances and clients on the others."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.doors import bare, instances
from benchmarks.doors.instances import PlaySpec, StepTimes
from benchmarks.doors.pinning import started_on
from core.access import new_token

_WAIT_S = 180.0


@dataclass(frozen=True, slots=True)
class Server:
    """Where it listens, and its process."""

    pid: int
    port: int
    http_port: int = 0


@dataclass(frozen=True, slots=True)
class Front:
    """The HTTP door by itself: its port, and its worker processes."""

    http_port: int
    pids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Rig:
    coordinator: Server
    instances: Connection
    client_cores: Set[int]

    def pace(self, step_s: float | None) -> list[StepTimes]:
        """From now on a step takes so long (None: no steps); the times of the steps before."""
        self.instances.send(step_s)
        return list(receive(self.instances))

    def run_client(self, target: Callable[[Any, Connection], None], spec: object) -> Any:
        """What a client process sent. Raises RuntimeError if it ended without."""
        with started_on(self.client_cores), process(target, spec) as pipe:
            return receive(pipe)


@contextmanager
def rig(model: Path, num_instances: int, cores: tuple[Set[int], Set[int]]) -> Iterator[Rig]:
    with tempfile.TemporaryDirectory(prefix="elasticmm-") as folder:
        token = new_token()
        token_file = Path(folder) / "token"
        token_file.write_text(token + "\n")
        with _coordinator(model, token_file, cores[0]) as server:
            spec = PlaySpec(f"127.0.0.1:{server.port}", token, model, num_instances)
            with started_on(cores[1]), process(instances.run, spec) as pipe:
                receive(pipe)
                yield Rig(server, pipe, cores[1])


@contextmanager
def front_of(coordinator: Server, num_workers: int, cores: Set[int]) -> Iterator[Front]:
    """`elasticmm serve-http` on these cores, before the coordinator."""
    command = [sys.executable, "-m", "cli.main", "serve-http", "--address", f"127.0.0.1:{coordinator.port}"]
    command += [
        "--port",
        "0",
        "--workers",
        str(num_workers),
        "--drain",
        "0",
        "--log-level",
        "ERROR",
        "--json",
    ]
    with started_on(cores):
        started = subprocess.Popen(command, stdout=subprocess.PIPE)
    with started as child:
        try:
            assert child.stdout is not None
            ready = json.loads(child.stdout.readline())
            yield Front(int(ready["http"].rsplit(":", 1)[1]), tuple(ready["workers"]))
        finally:
            child.terminate()


@contextmanager
def bare_server(cores: Set[int]) -> Iterator[Server]:
    """On these cores, as the coordinator is."""
    parent, child = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    with started_on(cores):
        served = context.Process(target=bare.run, args=(child,), daemon=True)
        served.start()
    child.close()
    try:
        assert served.pid is not None
        yield Server(served.pid, receive(parent))
    finally:
        parent.close()
        served.join()


@contextmanager
def process(target: Callable[[Any, Connection], None], spec: object) -> Iterator[Connection]:
    """Runs until its end of the pipe is closed here."""
    parent, child = multiprocessing.Pipe()
    started = multiprocessing.get_context("spawn").Process(target=target, args=(spec, child), daemon=True)
    started.start()
    child.close()
    try:
        yield parent
    finally:
        parent.close()
        started.join()


def receive(pipe: Connection) -> Any:
    """Raises RuntimeError where nothing comes."""
    try:
        if pipe.poll(_WAIT_S):
            return pipe.recv()
    except EOFError:
        raise RuntimeError("a process ended before its time; what it said is above") from None
    raise RuntimeError(f"a process said nothing for {_WAIT_S:g} s")


@contextmanager
def _coordinator(model: Path, token_file: Path, cores: Set[int]) -> Iterator[Server]:
    command = [sys.executable, "-m", "cli.main", "coordinator", "--model", str(model), "--port", "0"]
    command += ["--http-port", "0", "--token-file", str(token_file), "--max-waiting", "8192"]
    command += ["--log-level", "WARNING"]
    with started_on(cores):
        started = subprocess.Popen([*command, "--supervised"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with started as child:
        try:
            assert child.stdout is not None
            ready = json.loads(child.stdout.readline())
            port, http_port = (int(ready[name].rsplit(":", 1)[1]) for name in ("message", "http"))
            yield Server(child.pid, port, http_port)
        finally:
            child.terminate()
