"""One cluster's processes, from start to end.

    supervisor ──► coordinator ──► media gateway
        └──► forkserver ──► one process per stage server

Both children end when the supervisor does, however it ends.
"""

from __future__ import annotations

import dataclasses
import os
import selectors
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.compute_environment import compute_environment
from cli.launch.child import Child
from cli.launch.events import COORDINATOR, STAGES, LaunchError, LaunchEvent, PartState, Reporter
from cli.launch.plan import LaunchPlan
from cli.launch.ports import check_ports
from cli.launch.progress import print_event
from cli.launch.remains import (
    find_segments,
    record_process,
    remove_segments,
    signal_all,
    wait_gone,
    with_descendants,
)
from cli.launch.restarts import Restarts
from cli.state import ClusterRecord, ProcessRecord, StateDir
from core.access import new_token, write_token

_GRACE_S = 10.0
_LOOK_S = 1.0  # the longest wait in one piece: a signal that comes just before it is heard after it
_ORDERLY = "exit code 0"
_STATES = {
    "started": PartState.LOADING,
    "ready": PartState.READY,
    "failed": PartState.FAILED,
    "exited": PartState.EXITED,
}


@dataclass(frozen=True, slots=True)
class Programs:
    """How the two children are started; the coordinator's options are added."""

    stages: tuple[str, ...] = (sys.executable, "-m", "stage_servers.forkserver")
    coordinator: tuple[str, ...] = (sys.executable, "-m", "cli.main", "coordinator", "--supervised")


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a cluster ended; `is_orderly` where it was asked to (`elasticmm down`)."""

    reason: str
    is_orderly: bool


@dataclass(frozen=True, slots=True)
class RunningInstance:
    id: str
    pid: int


@dataclass(frozen=True, slots=True)
class RunningCluster:
    """A cluster whose every part is ready."""

    address: str
    http: str  # URL of the HTTP door; empty: it is closed
    metrics: str  # URL of the metrics' own listener; empty: there is none
    instances: tuple[RunningInstance, ...]
    record: ClusterRecord
    state_dir: Path

    def to_json(self) -> dict[str, Any]:
        """What `up --json` prints."""
        return {
            "address": self.address,
            "http": self.http,
            "metrics": self.metrics,
            "model": self.record.model,
            "topology": self.record.topology,
            "instances": [dataclasses.asdict(instance) for instance in self.instances],
            "pids": {process.name: process.pid for process in self.record.processes},
            "state_dir": str(self.state_dir),
        }


class Supervisor:
    """Starts the parts of `plan`, reports on them, and ends them all.

    The caller holds the state folder, calls `start`, perhaps `wait`, and always `stop`.
    """

    def __init__(self, plan: LaunchPlan, state: StateDir, programs: Programs | None = None) -> None:
        self._plan = plan
        self._programs = programs or Programs()
        self._state = state
        self._report: Reporter = print_event
        self._token = new_token()
        self._address = ""
        self._http = ""
        self._metrics = ""
        self._coordinator: Child | None = None
        self._stages: Child | None = None
        self._told: list[str] = []  # instances by the number that the forkserver has for a start
        self._restarts = Restarts(plan.restarts)
        self._pids: dict[str, int] = {}  # of stage servers, by instance id
        self._ready: set[str] = set()
        self._seen: dict[int, ProcessRecord] = {}  # every process that was ours, by pid
        self._selector = selectors.DefaultSelector()
        self._is_stopped = False

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts that are reported on, in order of start."""
        return (STAGES, COORDINATOR, *self._plan.instance_ids)

    def start(self, report: Reporter) -> RunningCluster:
        """Returns when every part is ready. Raises LaunchError; `stop` is still to be called."""
        self._report = report
        check_ports(self._plan)
        write_token(self._state.token_path, self._token)
        self._stages = self._start_stages()
        self._coordinator = self._start_coordinator()
        while not self._ready.issuperset(self._plan.instance_ids):
            for event in self._next_events():
                self._report(event)
                if event.state in (PartState.FAILED, PartState.EXITED):
                    raise LaunchError(self._explain(event))
        return self._write_down()

    def wait(self, report: Reporter) -> Ending:
        """Until the cluster ends; says why. A stage server that dies alone is started again."""
        self._report = report
        while True:
            for event in self._next_events(self._restarts.wait_s(time.monotonic())):
                self._report(event)
                self._mind(event)
                if event.part in (COORDINATOR, STAGES) or not (self._pids or self._restarts):
                    part = "coordinator" if event.part == COORDINATOR else "last stage server"
                    return Ending(f"the {part} ended: {event.message}", event.message == _ORDERLY)
            self._start_instances(self._restarts.take_due(time.monotonic()))

    def stop(self) -> list[str]:
        """Ends every process and removes what is left; returns what had to be forced.

        Harmless when called again.
        """
        if self._is_stopped:
            return []
        self._is_stopped = True
        children = self._children()
        self._note_processes()
        stages = self._stage_processes()
        for child in children:
            child.terminate()
        signal_all(stages, signal.SIGTERM)
        stubborn = wait_gone(self._seen.values(), _GRACE_S)
        signal_all(stubborn, signal.SIGKILL)
        for child in children:
            child.kill()
            child.close()
        wait_gone(stubborn, _GRACE_S)
        self._selector.close()
        self._state.clear()
        segments = find_segments(self._plan.cluster, self._seen.values())
        remove_segments(segments)
        return [f"{each.name} (pid {each.pid}) was killed" for each in stubborn] + [
            f"{path} was removed" for path in segments
        ]

    def _start_stages(self) -> Child:
        """First of all, since importing torch takes longest."""
        log_path, environment = self._state.log_path(STAGES), compute_environment()
        child = Child(STAGES, self._programs.stages, log_path, environment)
        child.send(
            [
                {
                    "model": str(self._plan.model),
                    "dtype": self._plan.dtype,
                    "attention": self._plan.attention,
                    "preload": "cpu" in self._plan.devices,
                }
            ]
        )
        self._watch(child)
        return child

    def _start_coordinator(self) -> Child:
        plan = self._plan
        command = [*self._programs.coordinator]
        command += ["--model", str(plan.model), "--host", plan.host, "--port", str(plan.port)]
        command += [] if plan.http_port is None else ["--http-port", str(plan.http_port)]
        command += ["--topology", plan.wanted.name, "--instances", str(plan.wanted.num_instances)]
        command += ["--token-file", str(self._state.token_path), "--log-level", plan.log_level]
        command += ["--model-name", plan.model_name] if plan.model_name else []
        command += ["--advertise", plan.advertise] if plan.advertise else []
        command += ["--allow-private-urls"] if plan.allow_private_urls else []
        command += plan.policy_words + plan.door_words + plan.watch_words
        child = Child(COORDINATOR, command, self._state.log_path(COORDINATOR))
        self._watch(child)
        return child

    def _watch(self, child: Child) -> None:
        self._selector.register(child.fileno(), selectors.EVENT_READ, child)
        self._report(LaunchEvent(child.name, PartState.STARTING, pid=child.pid))

    def _next_events(self, timeout_s: float | None = None) -> list[LaunchEvent]:
        """Waits until a child says something or ends, or for that time; may come back earlier with none."""
        events = []
        for key, _ in self._selector.select(_LOOK_S if timeout_s is None else min(timeout_s, _LOOK_S)):
            child: Child = key.data
            said = child.read_events()
            if said is None:
                self._selector.unregister(key.fd)
                code = child.wait(_GRACE_S)
                events.append(LaunchEvent(child.name, PartState.EXITED, f"exit code {code}", child.pid))
            else:
                events += [self._interpret(child, values) for values in said]
        return events

    def _interpret(self, child: Child, values: dict[str, Any]) -> LaunchEvent:
        if child.name == COORDINATOR:
            return self._hear_coordinator(child, values)
        return self._hear_stages(child, values)

    def _hear_coordinator(self, child: Child, values: dict[str, Any]) -> LaunchEvent:
        """When it is ready its address is known, and the stage servers can be told."""
        event = LaunchEvent(COORDINATOR, _STATES[values["event"]], values.get("message", ""), child.pid)
        if event.state is PartState.READY:
            self._address = event.message
            self._http = values.get("http", "")
            self._metrics = values.get("metrics", "")
            self._start_instances(self._plan.instance_ids)
        return event

    def _start_instances(self, instances: Sequence[str]) -> None:
        assert self._stages is not None
        configs = {each.instance_id: each for each in self._plan.stage_configs(self._address, self._token)}
        self._told += instances
        self._stages.send(configs[instance].to_json() for instance in instances)

    def _mind(self, event: LaunchEvent) -> None:
        """Has a stage server that ended otherwise than by the coordinator's word started again."""
        if event.part in (COORDINATOR, STAGES):
            return
        if event.state is PartState.READY:
            self._write_down()
        if event.state is not PartState.EXITED or event.message == _ORDERLY:
            return
        wait_s = self._restarts.died(event.part, time.monotonic())
        if wait_s is not None:
            self._report(LaunchEvent(event.part, PartState.STARTING, f"again in {wait_s:g} s"))
        elif self._restarts.most:
            said = f"not again: it died more than {self._restarts.most} times in ten minutes"
            self._report(LaunchEvent(event.part, PartState.FAILED, said))

    def _hear_stages(self, child: Child, values: dict[str, Any]) -> LaunchEvent:
        if values["event"] == "preloaded":
            return LaunchEvent(STAGES, PartState.READY, pid=child.pid)
        state = _STATES[values["event"]]
        message = f"exit code {values['code']}" if state is PartState.EXITED else values.get("message", "")
        if values.get("index") is None:
            return LaunchEvent(STAGES, state, message, child.pid)
        instance = self._told[values["index"]]
        self._note_instance(instance, state, values.get("pid"))
        return LaunchEvent(instance, state, "" if state is PartState.READY else message, values.get("pid"))

    def _note_instance(self, instance: str, state: PartState, pid: int | None) -> None:
        if state is PartState.READY:
            self._ready.add(instance)
        if state is PartState.EXITED:
            self._pids.pop(instance, None)
        elif pid is not None:
            self._pids[instance] = pid

    def _explain(self, event: LaunchEvent) -> str:
        child = self._coordinator if event.part == COORDINATOR else self._stages
        reason = f"{event.part} {event.state.value}" + (f": {event.message}" if event.message else "")
        log = child.last_lines() if child is not None else ""
        return f"{reason}\n--- {child.log_path if child else ''}\n{log}" if log else reason

    def _children(self) -> list[Child]:
        return [child for child in (self._stages, self._coordinator) if child is not None]

    def _note_processes(self) -> None:
        """Remembers every living process of ours."""
        records = [record_process(child.name, child.pid) for child in self._children()]
        records += [record_process(instance, pid) for instance, pid in self._pids.items()]
        known = [record for record in records if record is not None]
        self._seen |= {record.pid: record for record in with_descendants(known)}
        self._seen |= {record.pid: record for record in known}

    def _stage_processes(self) -> list[ProcessRecord]:
        record = record_process(STAGES, self._stages.pid) if self._stages else None
        return with_descendants([record] if record else [])

    def _write_down(self) -> RunningCluster:
        self._note_processes()
        supervisor = record_process("up", os.getpid())
        assert supervisor is not None
        record = ClusterRecord(
            cluster=self._plan.cluster,
            address=self._address,
            model=str(self._plan.model),
            topology=self._plan.wanted.name,
            processes=(supervisor, *self._seen.values()),
            tls=self._plan.client_tls,
            http=self._http,
        )
        self._state.write_record(record)
        instances = tuple(RunningInstance(*each) for each in self._pids.items())
        return RunningCluster(self._address, self._http, self._metrics, instances, record, self._state.path)
