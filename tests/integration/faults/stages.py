"""The forkserver of these tests: its stage servers stand still where a test wants, and show what they hold.

    python -m tests.integration.faults.stages CONTROL    else as stage_servers.forkserver

On SIGUSR1 a stage server writes INSTANCE.held into the control folder.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import signal
import sys
from pathlib import Path
from typing import Any

from stage_servers import forkserver, server
from stage_servers.config import StageConfig
from stage_servers.instance import Instance
from tests.integration.faults import holding

CONTROL = Path(sys.argv[1])
_SET_DEATH_SIGNAL = 1  # of prctl
_run = server.run


class Shown(Instance):
    """Tells on SIGUSR1 whether it holds anything."""

    def start(self, *parts: Any, **options: Any) -> None:
        super().start(*parts, **options)
        self._telling: set[asyncio.Task[None]] = set()
        self._loop.add_signal_handler(signal.SIGUSR1, self._tell_soon)

    def _tell_soon(self) -> None:
        task = asyncio.create_task(self._tell())
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell(self) -> None:
        problem = ""
        try:
            await self.check_idle()
        except AssertionError as error:
            problem = str(error)
        written = CONTROL / f"{self.instance_id}.writing"
        written.write_text(json.dumps(problem))
        written.rename(CONTROL / f"{self.instance_id}.held")


def run(config: StageConfig, **options: Any) -> None:
    """As server.run, in the process that becomes a stage server.

    It ends with its parent even while it stands still, when SIGTERM would wait.
    """
    ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
    holding.install(config.instance_id, CONTROL)
    _run(config, **options)


def main() -> int:
    server.Instance = Shown  # type: ignore[misc]
    server.run = run
    return forkserver.main()


if __name__ == "__main__":
    sys.exit(main())
