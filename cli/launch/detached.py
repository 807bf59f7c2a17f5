"""A supervisor that outlives the command that started it.

    python -m cli.launch.detached < {"plan": …, "state_dir": …}

It writes a JSON line per LaunchEvent, then {"ready": …} or {"error": …}, then
nothing more.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from cli.launch.events import LaunchError, LaunchEvent, PartState, Reporter
from cli.launch.plan import LaunchPlan
from cli.launch.progress import line_of, show_progress
from cli.launch.supervisor import Supervisor
from cli.state import AlreadyUpError, StateDir
from core.log_lines import start_log

_log = logging.getLogger("elasticmm.up")


def start_detached(plan: LaunchPlan, state: StateDir) -> dict[str, Any]:
    """Starts it and waits until the cluster is ready; returns RunningCluster's JSON.

    Raises LaunchError. Interrupted, it ends what it started.
    """
    state.path.mkdir(mode=0o700, parents=True, exist_ok=True)
    with state.log_path("up").open("ab") as log:  # it may be that of a cluster that is up
        state.log_path("up").chmod(0o600)
        process = subprocess.Popen(
            [sys.executable, "-m", "cli.launch.detached"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
    try:
        with show_progress(Supervisor(plan, state).parts) as report:
            return _follow(process, {"plan": plan.to_json(), "state_dir": str(state.path)}, report)
    except BaseException:
        process.terminate()
        process.wait()
        raise


def _follow(process: subprocess.Popen[bytes], order: dict[str, Any], report: Reporter) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin as stdin:
        stdin.write(json.dumps(order).encode())
    with process.stdout as stdout:
        for line in stdout:
            said = json.loads(line)
            if "ready" in said:
                return dict(said["ready"])
            if "error" in said:
                raise LaunchError(said["error"])
            report(LaunchEvent(**{**said, "state": PartState(said["state"])}))
    raise LaunchError("the supervisor ended without a word; see up.log in the state folder")


def main() -> int:
    order = json.load(sys.stdin)
    state = StateDir(Path(order["state_dir"]))
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    try:
        state.acquire()
    except (AlreadyUpError, OSError) as error:
        _ignore_signals()  # whoever hears of it ends this process
        _say({"error": str(error)})
        return 1
    os.ftruncate(sys.stderr.fileno(), 0)
    plan = LaunchPlan.from_json(order["plan"])
    start_log(plan.log_level, plan.log_format)
    return _supervise(Supervisor(plan, state))


def _supervise(supervisor: Supervisor) -> int:
    try:
        _say({"ready": supervisor.start(_pass_on).to_json()})
        _close_output()
        _log.info(supervisor.wait(_write_down).reason)
    except LaunchError as error:
        _ignore_signals()
        supervisor.stop()
        _log.error(error)
        _say({"error": str(error)})
        return 1
    except (KeyboardInterrupt, BrokenPipeError):
        pass
    finally:
        _ignore_signals()
        for line in supervisor.stop():
            _log.warning(line)
    return 0


def _ignore_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _write_down(event: LaunchEvent) -> None:
    failed = event.state in (PartState.FAILED, PartState.EXITED)
    _log.log(logging.WARNING if failed else logging.INFO, line_of(event))


def _pass_on(event: LaunchEvent) -> None:
    _write_down(event)
    _say(dataclasses.asdict(event) | {"state": event.state.value})


def _say(values: dict[str, Any]) -> None:
    print(json.dumps(values), flush=True)


def _close_output() -> None:
    """Whoever started us sees the end and is not waited for."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


if __name__ == "__main__":
    sys.exit(main())
