"""Files for commands to stumble over."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from core.profile_file import format_profile
from tests.cli.conftest import RunCli
from tests.simulator.profiles import ROUND

BINARY = bytes(range(256))
LATIN = "name = 'ä'".encode("latin-1")
Content = str | bytes | None  # None: a folder in the place of the file

SCENARIO = """
name = "small"
title = "A small one"
rates_rps = [2.0]

[cluster]
instances = 2

[[sets]]
name = "emp"

[[cases]]
name = "one"
profile = "round.json"
workload.mix = { duration_s = 5.0 }
slo.text = { ttft_s = 1.0, tpot_s = 0.1 }
slo.image = { ttft_s = 2.0, tpot_s = 0.1 }
slo.sharegpt-4o = { ttft_s = 2.0, tpot_s = 0.1 }
"""
MIX = "workload.mix = { duration_s = 5.0 }"


def put(folder: Path, files: Mapping[str, Content]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        if content is None:
            path.mkdir()
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)


def problem_of(run_cli: RunCli, folder: Path, files: Mapping[str, Content], *options: object) -> str:
    """What `simulate` says of such files beside a profile that is fine; everything else is checked here."""
    put(folder, {"round.json": format_profile(ROUND), "s.toml": SCENARIO} | dict(files))
    result = run_cli("simulate", folder / "s.toml", "--jobs", 1, *options)
    assert isinstance(result.exception, SystemExit)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("elasticmm: ")
    return line.removeprefix("elasticmm: ").replace(f"{folder}/", "")
