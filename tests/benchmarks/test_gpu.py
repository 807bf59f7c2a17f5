"""The command for a GPU, without one: parts that take too long are ended, and end what they started."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.gpu import _run_within

PART = """
import pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path(sys.argv[1]).write_text("started")
try:
    time.sleep(600)
finally:
    child.kill()
    child.wait()
    pathlib.Path(sys.argv[1]).write_text("ended")
"""


def test_a_part_in_time_says_how_it_went() -> None:
    assert _run_within([sys.executable, "-c", "raise SystemExit(3)"], 60) == 3


def test_a_part_that_takes_too_long_ends_what_it_started(tmp_path: Path) -> None:
    note = tmp_path / "note"
    assert _run_within([sys.executable, "-c", PART, str(note)], 3) != 0
    assert note.read_text() == "ended"
