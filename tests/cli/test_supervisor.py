"""Launching, with small programs in place of coordinator and stage servers."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.launch.events import COORDINATOR, STAGES, LaunchError, LaunchEvent, PartState
from cli.launch.plan import LaunchPlan
from cli.launch.remains import living, record_process
from cli.launch.supervisor import Ending, Programs, Supervisor
from cli.state import StateDir

CLUSTER = f"supervised_{os.getpid()}"
SAY = "import json, sys, time\ndef say(**values): print(json.dumps(values), flush=True)\n"
READY = SAY + "say(event='ready', message='127.0.0.1:7')\ntime.sleep(60)"
FORKS = (
    SAY
    + """
import os
from stage_servers.forkserver import die_with_parent
first, pids = sys.stdin.readline(), []
say(event='preloaded')
for index, line in enumerate(sys.stdin):
    config = json.loads(line)
    pid = os.fork()
    if pid == 0:
        die_with_parent()
        time.sleep(60)
    say(event='started', index=index, pid=pid)
    say(event='ready', index=index, pid=pid, message=config['instance_id'])
"""
)

ENDS = (
    SAY
    + """
import itertools, os
say(event='preloaded')
for index, line in enumerate(itertools.islice(sys.stdin, 1, 4)):
    say(event='ready', index=index, pid=os.getpid())
for index in range(3):
    time.sleep(0.1)
    say(event='exited', index=index, pid=os.getpid(), code=index + 2)
time.sleep(60)
"""
)

# The second instance dies twice; then the coordinator has them all end.
DIES = (
    SAY
    + """
say(event='preloaded')
sys.stdin.readline()
for index, line in enumerate(sys.stdin):
    say(event='started', index=index, pid=1 << 30 | index)
    say(event='ready', index=index, pid=1 << 30 | index, message=json.loads(line)['instance_id'])
    time.sleep(0.3)
    if index in (2, 3):
        say(event='exited', index=max(1, index * (index == 3)), pid=1 << 30 | index, code=-9)
    if index == 4:
        for each in (0, 2, 4):
            say(event='exited', index=each, pid=1 << 30 | each, code=0)
"""
)


def program(text: str) -> tuple[str, ...]:
    return (sys.executable, "-c", text)


@pytest.fixture
def events() -> list[LaunchEvent]:
    return []


@pytest.fixture
def launch(tmp_path: Path, model: Path) -> Iterator[object]:
    made: list[Supervisor] = []

    def launch(stages: str = FORKS, coordinator: str = READY, restarts: int = 0) -> Supervisor:
        state = StateDir(tmp_path / "state")
        state.acquire()
        plan = LaunchPlan(CLUSTER, model, "e1p1d1", restarts=restarts)
        made.append(Supervisor(plan, state, Programs(program(stages), program(coordinator))))
        return made[-1]

    yield launch
    for supervisor in made:
        supervisor.stop()


def test_starts_reports_and_ends_everything(launch, events, tmp_path) -> None:
    supervisor = launch()
    cluster = supervisor.start(events.append)
    assert cluster.address == "127.0.0.1:7"
    assert [instance.id for instance in cluster.instances] == ["e-0", "p-0", "d-0"]
    assert StateDir(tmp_path / "state").read_record() == cluster.record
    assert {event.part for event in events} == set(supervisor.parts)
    assert len(living(cluster.record.processes)) == 6

    Path(f"/dev/shm/elasticmm-{CLUSTER}-left-1").touch()
    assert any(f"elasticmm-{CLUSTER}-left-1 was removed" in line for line in supervisor.stop())
    assert [process.name for process in living(cluster.record.processes)] == ["up"]
    assert StateDir(tmp_path / "state").read_record() is None
    assert not (tmp_path / "state" / "token").exists()


@pytest.mark.parametrize(
    ("broken", "part", "message"),
    [
        (
            {"stages": SAY + "say(event='failed', index=None, message='no weights'); time.sleep(60)"},
            STAGES,
            "no weights",
        ),
        ({"stages": SAY + "sys.stdin.readline(); sys.exit('cannot import')"}, STAGES, "cannot import"),
        ({"coordinator": SAY + "say(event='failed', message='port taken')"}, COORDINATOR, "port taken"),
        ({"coordinator": "raise OSError('bug')"}, COORDINATOR, "OSError: bug"),
        ({"stages": FORKS.replace("'ready'", "'failed'")}, "e-0", "e-0 failed"),
    ],
)
def test_a_part_that_fails_is_named_with_its_reason(launch, events, broken, part, message) -> None:
    supervisor = launch(**broken)
    with pytest.raises(LaunchError, match=message) as caught:
        supervisor.start(events.append)
    assert str(caught.value).startswith(part)
    pids = [event.pid for event in events if event.pid is not None]
    supervisor.stop()
    assert not [pid for pid in pids if record_process("", pid) is not None]


@pytest.mark.parametrize(("code", "is_orderly"), [(0, True), (3, False)])
def test_waits_until_the_coordinator_ends(launch, events, code: int, is_orderly: bool) -> None:
    supervisor = launch(
        coordinator=SAY + f"say(event='ready', message='h:7'); time.sleep(0.5); sys.exit({code})"
    )
    supervisor.start(events.append)
    ending = supervisor.wait(events.append)
    assert ending == Ending(f"the coordinator ended: exit code {code}", is_orderly)
    assert events[-1].state is PartState.EXITED


def test_a_stage_server_may_end_alone(launch, events) -> None:
    supervisor = launch(stages=ENDS)
    supervisor.start(events.append)
    assert supervisor.wait(events.append) == Ending("the last stage server ended: exit code 4", False)
    assert [event.part for event in events if event.state is PartState.EXITED] == ["e-0", "p-0", "d-0"]


def test_a_stage_server_that_dies_is_started_again(launch, events) -> None:
    supervisor = launch(stages=DIES, restarts=2)
    supervisor.start(events.append)
    assert supervisor.wait(events.append) == Ending("the last stage server ended: exit code 0", True)
    of_it = [(event.state, event.message) for event in events if event.part == "p-0"]
    started, ready = (PartState.LOADING, ""), (PartState.READY, "")
    died = (PartState.EXITED, "exit code -9")
    assert of_it[:10] == [
        *(started, ready, died, (PartState.STARTING, "again in 1 s")),
        *(started, ready, died, (PartState.STARTING, "again in 2 s")),
        *(started, ready),
    ]


def test_what_dies_too_often_stays_away(launch, events) -> None:
    supervisor = launch(stages=ENDS, restarts=0)
    supervisor.start(events.append)
    supervisor.wait(events.append)
    assert not [event for event in events if event.message.startswith("again")]
