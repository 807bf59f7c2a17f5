"""Compiled modules give the results of their sources, with every kind of set, in one process and in two."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from simulator import compiled
from simulator.cluster import Cluster

can_compile = pytest.mark.skipif(
    find_spec("mypyc") is None or shutil.which("cc") is None, reason="mypyc or a C compiler is missing"
)

SETS = """
[[sets]]
name = "coupled"
discipline = "whole"

[[sets]]
name = "replicas"
encoder_cache = true
prefix_cache = true

[[sets]]
name = "static:equal"

[[sets]]
name = "emp"
unified_cache = true

[[sets]]
name = "emp with one prompt after the other"
policy = "emp"
discipline = "chunked"
encoding = "blocking"
encoder_cache = true

[[sets]]
name = "emp as servers were once"
policy = "emp"
encoding = "inline"
without = ["late-yields", "hysteresis"]
"""
SCENARIO = f"""
name = "compiled"
title = "All kinds of sets"
rates_rps = [12.0, 40.0]
refine_steps = 1

[cluster]
instances = 8
{SETS}
[[cases]]
name = "two bursts"
profile = "a800-qwen2.5-vl-7b"
slo.text = {{ ttft_s = 0.12, tpot_s = 0.05 }}
slo.sharegpt-4o = {{ ttft_s = 0.9, tpot_s = 0.05 }}
[cases.workload]
mix = {{ pictures = "sharegpt-4o", text_share = 0.7, duration_s = 20.0, output_tokens = 64 }}
bursts = [
    {{ kind = "images", start_s = 4.0, duration_s = 4.0, factor = 3.0 }},
    {{ kind = "tokens", start_s = 10.0, duration_s = 5.0, factor = 5.0 }},
]
"""
SIMULATE = """
import sys
from cli.main import main
sys.argv[0] = "elasticmm"
try:
    main()
finally:
    print(sys.modules["simulator.scenario"].__file__, file=sys.stderr)
    print(sys.modules["coordinator.policy.books"].__file__, file=sys.stderr)
"""


def simulate(scenario: Path, variable: str, jobs: int) -> tuple[str, list[str]]:
    """What it prints, and the files that two of its modules came from."""
    done = subprocess.run(
        [sys.executable, "-c", SIMULATE, "simulate", str(scenario), "--json", "--jobs", str(jobs)],
        env={**os.environ, compiled.VARIABLE: variable, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr.splitlines()


@can_compile
@pytest.mark.timeout(1800)
def test_results_are_those_of_the_sources(tmp_path: Path) -> None:
    folder = compiled.ensure_built()
    assert compiled.ensure_built() == folder
    scenario = tmp_path / "scenario.toml"
    scenario.write_text(SCENARIO)
    of_sources, files = simulate(scenario, "0", 2)
    assert all(file.endswith(".py") for file in files)
    summaries = [each for outcome in json.loads(of_sources)["outcomes"] for each in outcome["summaries"]]
    assert any(each["num_switches"] > 0 for each in summaries)
    for jobs in (1, 2):
        of_compiled, files = simulate(scenario, "1", jobs)
        assert files[0].endswith(".py")
        assert files[1].startswith(str(folder))
        assert of_compiled == of_sources


def test_modules_that_were_imported_already_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(compiled.VARIABLE, "1")
    assert Cluster.__module__ in compiled.modules()
    before = list(sys.meta_path)
    assert not compiled.use()
    assert sys.meta_path == before


def test_sources_are_used_where_nothing_was_compiled(tmp_path: Path) -> None:
    code = "from simulator import compiled; import sys; sys.exit(compiled.use())"
    environment = {
        **os.environ,
        compiled.VARIABLE: "1",
        "XDG_CACHE_HOME": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


def test_what_is_named_is_there() -> None:
    root = Path(compiled.__file__).parent.parent
    for name in compiled.modules():
        assert (root / f"{name.replace('.', '/')}.py").is_file()


def test_without_mypyc_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mypyc", None)
    monkeypatch.setattr(compiled, "find_spec", lambda name: None if name == "mypyc" else find_spec(name))
    with pytest.raises(compiled.NativeError, match=r"mypyc missing: pip install 'elasticmm\[compiled\]'"):
        compiled.ensure_built()
