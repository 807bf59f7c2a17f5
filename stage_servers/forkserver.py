"""Starts stage servers by forking from one process that has imported and loaded everything.

    python -m stage_servers.forkserver   < JSON lines   > JSON lines

The first line read is {"model": DIR, "dtype": …, "attention": …, "preload": true|false};
every further one is a StageConfig as JSON and starts one process. Written are
{"event": "preloaded"}, and per process {"event": "started" | "ready" |
"failed" | "exited", "index": N, "pid": P, "message": …, "code": …}. The end of
the input ends every process.

Why: torch and transformers take seconds to import, and packed weights are
shared between the forked processes page by page. It must happen before any
gRPC object or thread exists. Devices other than the CPU cannot be used after a
fork, so those stage servers are started as programs of their own.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from core.collector import settle_collector
from stage_servers.config import StageConfig

if TYPE_CHECKING:
    from stage_servers.engine.served import ServedModel


@dataclass(slots=True)
class _Child:
    index: int
    pid: int
    pipe: IO[bytes]  # its readiness lines


class Forkserver:
    """Reads configs, forks, and passes on what the children say of themselves."""

    def __init__(self, model: ServedModel | None, commands: int) -> None:
        self._model = model
        self._commands = commands
        self._pending = b""
        self._children: dict[int, _Child] = {}
        self._count = 0
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        """Until the input ends; then every child is stopped and waited for."""
        self._selector.register(self._commands, selectors.EVENT_READ, None)
        is_open = True
        while is_open:
            for key, _ in self._selector.select():
                if key.data is None:
                    is_open = self._read_commands()
                else:
                    self._hear(key.data)
        self._stop_all()

    def _read_commands(self) -> bool:
        data = os.read(self._commands, 65536)
        self._pending += data
        *lines, self._pending = self._pending.split(b"\n")
        for line in lines:
            if line.strip():
                self._start(json.loads(line))
        return bool(data)

    def _start(self, values: dict[str, Any]) -> None:
        index = self._count
        self._count += 1
        try:
            config = StageConfig.from_json(values)
        except ValueError as error:
            _say(event="failed", index=index, message=str(error))
            return
        child = _spawn(index, config) if config.device.startswith("cuda") else self._fork(index, config)
        self._children[child.pid] = child
        self._selector.register(child.pipe, selectors.EVENT_READ, child)
        _say(event="started", index=index, pid=child.pid)

    def _fork(self, index: int, config: StageConfig) -> _Child:
        read, write = os.pipe()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            die_with_parent(parent)
            os.close(read)
            _take_away(self._commands)
            for other in self._children.values():
                other.pipe.close()
            become_stage(config, self._model, write)
        os.close(write)
        return _Child(index, pid, os.fdopen(read, "rb", buffering=0))

    def _hear(self, child: _Child) -> None:
        line = child.pipe.readline()
        if line:
            event = json.loads(line)
            _say(index=child.index, pid=child.pid, **event)
            return
        self._selector.unregister(child.pipe)
        child.pipe.close()
        del self._children[child.pid]
        _, status = os.waitpid(child.pid, 0)
        _say(event="exited", index=child.index, pid=child.pid, code=os.waitstatus_to_exitcode(status))

    def _stop_all(self) -> None:
        for pid in self._children:
            os.kill(pid, signal.SIGTERM)
        while self._children:
            for key, _ in self._selector.select():
                if key.data is not None:
                    self._hear(key.data)


def become_stage(config: StageConfig, model: ServedModel | None, pipe: int) -> None:
    """Runs in the child and never returns."""
    from stage_servers.server import run

    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C goes to the whole terminal group; the parent decides
    code = 0
    try:
        run(config, model=model, on_ready=lambda instance_id: _tell(pipe, "ready", instance_id))
    except Exception as error:
        _tell(pipe, "failed", str(error))
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _spawn(index: int, config: StageConfig) -> _Child:
    """A stage server as a program of its own, which reads its config from its input."""
    read, write = os.pipe()
    program = [sys.executable, "-m", "stage_servers.standalone", str(write)]
    process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=2, pass_fds=(write,))
    os.close(write)
    assert process.stdin is not None
    process.stdin.write(json.dumps(config.to_json()).encode())
    process.stdin.close()
    return _Child(index, process.pid, os.fdopen(read, "rb", buffering=0))


def _take_away(descriptor: int) -> None:
    """Leaves nothing to read there; the number stays taken, for a socket must not become descriptor 0."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, descriptor)
    os.close(null)


def die_with_parent(parent: int | None = None) -> None:
    """Has the kernel end this process when its parent ends, however that happens (Linux).

    `parent` is the process id it must have still; a parent that was gone before
    this call would never be heard of.
    """
    if sys.platform == "linux":
        import ctypes

        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
    if parent is not None and os.getppid() != parent:
        os._exit(1)


def _tell(pipe: int, event: str, message: str) -> None:
    os.write(pipe, json.dumps({"event": event, "message": message}).encode() + b"\n")


def _say(**values: Any) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


def _preload(values: dict[str, Any]) -> ServedModel | None:
    """Imports what every stage server needs; loads the model where it can be shared."""
    import torch

    torch.set_num_threads(1)  # a thread pool would not survive the fork
    from stage_servers import server  # noqa: F401  (imported for the children)
    from stage_servers.engine.loader import load_model

    if not values.get("preload", True):
        return None
    return load_model(
        Path(values["model"]),
        dtype=values.get("dtype", "auto"),
        device="cpu",
        attention=values.get("attention", "auto"),
    )


def _first_line(descriptor: int) -> bytes:
    """One line, not a byte more: the rest is read later from the bare descriptor."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(descriptor, 1)
        if not byte:
            break
        line += byte
    return line


def main() -> int:
    commands = sys.stdin.fileno()
    die_with_parent()
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        model = _preload(json.loads(_first_line(commands)))
    except (ValueError, OSError) as error:
        _say(event="failed", index=None, message=str(error))
        return 1
    settle_collector()  # children share what is there as long as no collection of theirs writes to it
    _say(event="preloaded")
    Forkserver(model, commands).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
