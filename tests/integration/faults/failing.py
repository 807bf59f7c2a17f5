"""A running cluster whose instances are stopped, killed and started again one by one."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cli.compute_environment import compute_environment
from cli.launch.child import Child
from core.stages import parse_roles
from elasticmm_client import Client
from stage_servers.config import StageConfig
from tests.integration.faults.holding import Reached
from tests.integration.running import SHM, Running, is_alive, is_idle

HEARTBEAT_TIMEOUT_S = 2.5
MOST_GROWTH = 24  # threads of bounded pools, and connections to peers, are made when first needed
_BOUND_S = 60.0  # a busy machine may stand still for long


@dataclass(frozen=True, slots=True)
class Lost:
    """An instance that the coordinator has given up."""

    name: str
    pid: int


class Failing:
    """Instances are named e-0, p-0, d-0 and so on, after the one role each plays."""

    def __init__(self, folder: Path, model: Path, *, kv_blocks: int, chunk_tokens: int) -> None:
        self._folder = folder
        self._model = model
        self._sizes = {"kv_blocks": kv_blocks, "chunk_tokens": chunk_tokens}
        self._cluster = f"faults_{secrets.token_hex(4)}"
        self._token = secrets.token_hex(16)
        self._usages: dict[int, int] = {}
        self.control = folder / "control"
        self.control.mkdir()
        token_file = folder / "token"
        token_file.write_text(self._token)
        self._stages = self._start_stages()
        self._coordinator = self._start_coordinator(token_file)
        self.address = self._ready_coordinator()
        self.client = Client(self.address, token=self._token)
        self.running = Running(self.address, self.client, folder, {}, http="")

    def add(self, *names: str) -> None:
        """Starts instances and waits until all serve."""
        self._stages.send(self._config(name).to_json() for name in names)
        self.running.wait_until(lambda status: set(names) <= {each.id for each in status.instances}, _BOUND_S)

    def pids(self) -> dict[str, int]:
        """Of the instances that are attached."""
        return {each.id: each.pid for each in self.running.status().instances}

    def arm(self, role: str, point: str) -> None:
        (self.control / "reached").unlink(missing_ok=True)
        (self.control / f"{role}.arm").write_text(point)

    def wait_reached(self) -> Reached:
        """Until an instance stands still at the armed point."""
        reached = self.control / "reached"
        wait_for(reached.exists, "nobody came to the point")
        found = Reached(**json.loads(reached.read_text()))
        wait_for(lambda: is_stopped(found.pid), "it did not stop")
        return found

    def lose(self, reached: Reached, *, is_itself: bool, fault: str) -> Lost:
        """Kills or freezes who stands still, or its peer meanwhile; returns when that has been given up."""
        name = reached.instance if is_itself else reached.peer
        lost = Lost(name, self.pids()[name])
        os.kill(lost.pid, signal.SIGKILL if fault == "killed" else signal.SIGSTOP)
        if fault == "killed":
            self.wait_gone(name)
        if not is_itself:
            os.kill(reached.pid, signal.SIGCONT)
        self.wait_gone(name)
        return lost

    def bring_back(self, lost: Lost) -> None:
        """One that was killed is started anew, one that was frozen goes on; waits until it is attached."""
        if not is_alive(lost.pid):
            self.add(lost.name)
            return
        os.kill(lost.pid, signal.SIGCONT)
        self.running.wait_until(
            lambda status: (lost.name, lost.pid) in {(each.id, each.pid) for each in status.instances},
            _BOUND_S,
        )

    def wait_gone(self, name: str) -> None:
        """Until the coordinator has given the instance up."""
        self.running.wait_until(lambda status: name not in {each.id for each in status.instances}, _BOUND_S)

    def num_dispatches(self, request_id: str) -> int:
        """Of a request that has ended, as the coordinator's log has it."""
        pattern = re.compile(rf"request {re.escape(request_id)}: .*, dispatched (\d+) times")
        wait_for(lambda: pattern.search(self._log()) is not None, f"{request_id} has not ended")
        return int(pattern.findall(self._log())[-1])

    def assert_nothing_is_lost(self) -> None:
        """All blocks, slots and leases are back, and shared memory is that of living instances only."""
        pids = self.pids()
        for name, pid in pids.items():
            problem = self._held_by(name, pid)
            assert not problem, f"{name}: {problem}"
        self.running.wait_until(
            lambda status: is_idle(status) and not any(each.quarantined_blocks for each in status.instances),
            _BOUND_S,
        )
        segments = {path.name for path in SHM.glob(f"elasticmm-{self._cluster}-*")}
        for pid in pids.values():
            segments |= mapped_segments(pid, self._cluster)
            usage = count_usage(pid)
            assert usage <= self._usages.setdefault(pid, usage) + MOST_GROWTH
        gone = {name for name in segments if int(name.rpartition("-")[2]) not in pids.values()}
        assert not gone, f"memory of processes that are gone: {gone}"
        assert len(list(SHM.glob(f"elasticmm-{self._cluster}-*-kv-*"))) == len(pids)

    def close(self) -> None:
        """The coordinator tells all to stop; only then does their parent go, with which they would die."""
        pids = self._children()
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        self.client.close()
        try:
            _end(self._coordinator)
            wait_for(lambda: not any(map(is_alive, pids)), "stage servers are left")
        finally:
            _end(self._stages)
        assert not list(SHM.glob(f"elasticmm-{self._cluster}-*"))

    def _held_by(self, name: str, pid: int) -> str:
        """What the instance says that it holds; asked again, for the last freeing may be on its way."""
        answer = self.control / f"{name}.held"
        problem = "no answer"
        end_s = time.monotonic() + _BOUND_S
        while problem and time.monotonic() < end_s:
            answer.unlink(missing_ok=True)
            os.kill(pid, signal.SIGUSR1)
            wait_for(answer.exists, f"{name} does not answer")
            problem = json.loads(answer.read_text())
        return problem

    def _children(self) -> list[int]:
        text = Path(f"/proc/{self._stages.pid}/task/{self._stages.pid}/children").read_text()
        return [int(pid) for pid in text.split()]

    def _config(self, name: str) -> StageConfig:
        return StageConfig(
            model=self._model,
            coordinator=self.address,
            token=self._token,
            cluster=self._cluster,
            instance_id=name,
            roles=parse_roles(name.partition("-")[0]),
            dtype="float32",
            threads=1,
            **self._sizes,  # type: ignore[arg-type]
        )

    def _start_stages(self) -> Child:
        command = [sys.executable, "-m", "tests.integration.faults.stages", str(self.control)]
        child = Child("stages", command, self._folder / "stages.log", compute_environment())
        child.send([{"model": str(self._model), "dtype": "float32", "preload": True}])
        return child

    def _start_coordinator(self, token_file: Path) -> Child:
        command = [sys.executable, "-m", "cli.main", "coordinator", "--supervised", "--port", "0"]
        command += ["--model", str(self._model), "--token-file", str(token_file)]
        command += ["--heartbeat-timeout", str(HEARTBEAT_TIMEOUT_S)]
        return Child("coordinator", command, self._folder / "coordinator.log")

    def _ready_coordinator(self) -> str:
        while (events := self._coordinator.read_events()) is not None:
            for event in events:
                assert event["event"] == "ready", event
                return str(event["message"])
        raise AssertionError(self._coordinator.last_lines())

    def _log(self) -> str:
        return self._coordinator.log_path.read_text()


@contextmanager
def failing(
    folder: Path, model: Path, *names: str, kv_blocks: int, chunk_tokens: int = 512
) -> Iterator[Failing]:
    """A cluster of these instances; nothing of it may be left afterwards."""
    cluster = Failing(folder, model, kv_blocks=kv_blocks, chunk_tokens=chunk_tokens)
    try:
        cluster.add(*names)
        yield cluster
    finally:
        cluster.close()


def _end(child: Child) -> None:
    child.terminate()
    if child.wait(_BOUND_S) is None:
        child.kill()
    child.close()


def wait_for(holds: Callable[[], object], problem: str) -> None:
    end_s = time.monotonic() + _BOUND_S
    while not holds():
        assert time.monotonic() < end_s, problem
        time.sleep(0.01)


def is_stopped(pid: int) -> bool:
    """Whether all its threads stand still."""
    states = [
        path.read_text().rpartition(")")[2].split()[0] for path in Path(f"/proc/{pid}/task").glob("*/stat")
    ]
    return set(states) == {"T"}


def mapped_segments(pid: int, cluster: str) -> set[str]:
    """Names of the cluster's segments that the process maps, removed ones included."""
    maps = Path(f"/proc/{pid}/maps").read_text()
    return set(re.findall(rf"{SHM}/(elasticmm-{cluster}-\S+)", maps))


def count_usage(pid: int) -> int:
    """Threads and open files."""
    return sum(len(os.listdir(f"/proc/{pid}/{what}")) for what in ("task", "fd"))
