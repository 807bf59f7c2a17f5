"""The schema against those that others publish, and the coordinator against their clients as they are."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from elasticmm.oip import open_inference_pb2 as pb
from tests.coordinator.conftest import MakeBench, picture
from tests.coordinator.fake_stage import fake_token
from tests.coordinator.oip.conftest import run_program, run_python
from tests.coordinator.oip.programs.published import describe

EXAMPLE = Path("docs/oip.md").read_text().split("```python\n")[1].split("```")[0]
PACKAGES = ("tritonclient", "kserve")


@pytest.mark.parametrize("package", PACKAGES)
async def test_numbers(package: str) -> None:
    theirs, ours = await run_program("published", package, package=package), describe(pb)
    common = theirs["messages"].keys() & ours["messages"].keys()
    assert len(common) >= 20
    assert theirs["service"] == ours["service"]
    for name in common:
        fields = [field for field in ours["messages"][name] if field in theirs["messages"][name]]
        assert fields == theirs["messages"][name]
    for name in theirs["methods"].keys() & ours["methods"].keys():
        assert ours["methods"][name] == theirs["methods"][name]


async def test_all_of_ours_is_published() -> None:
    theirs, ours = (
        await run_program("published", "tritonclient", package="tritonclient"),
        describe(pb),
    )
    published = theirs["messages"] | theirs["imported"]
    for name, fields in ours["messages"].items():
        assert [field for field in fields if field not in published[name]] == []
    assert ours["enums"] == {name: theirs["enums"][name] for name in ours["enums"]}
    assert ours["methods"].items() <= theirs["methods"].items()


async def test_tritonclient(make_bench: MakeBench, tmp_path: Path) -> None:
    seen = await _ask("ask_triton", "tritonclient", make_bench, tmp_path)
    assert (seen["live"], seen["ready"], seen["model_ready"], seen["other_ready"]) == (
        True,
        True,
        True,
        False,
    )
    assert (seen["server"], seen["inputs"][:2]) == ("elasticmm", ["text_input", "messages"])
    config = seen["config"]
    assert config["backend"] == "elasticmm"
    assert config["model_transaction_policy"] == {"decoupled": True}
    assert config["input"][0] == {
        "name": "text_input",
        "data_type": "TYPE_STRING",
        "dims": ["1"],
        "optional": True,
    }
    assert "model_configuration" in seen["extensions"]
    once = seen["once"]
    assert once["output_ids"] == [fake_token(7, index) for index in range(6)]
    assert (once["finish_reason"], once["num_output_tokens"], once["seed"]) == (["length"], [6], [7])
    assert "top_p: 2 is not in (0, 1]" in seen["refused"][1]
    assert seen["refused"][0] == "StatusCode.INVALID_ARGUMENT"


async def test_tritonclient_streams(make_bench: MakeBench, tmp_path: Path) -> None:
    seen = await _ask("ask_triton", "tritonclient", make_bench, tmp_path)
    assert {"error": "INVALID_ARGUMENT: beam_width: is no parameter that is known here"} in seen["streamed"]
    good = [each for each in seen["streamed"] if each.get("id") == "good"]
    assert len(good) >= 2
    assert [each["is_last"] for each in good] == [False] * (len(good) - 1) + [True]
    assert good[-1]["outputs"] == {"text_output": [""], "finish_reason": ["length"]}
    text = "".join(each["outputs"]["text_output"][0] for each in good)
    assert len(text) == 5


@pytest.mark.skipif(find_spec("tritonclient") is None, reason="tritonclient is not installed")
async def test_example(make_bench: MakeBench, tmp_path: Path) -> None:
    """The documentation's own lines, with this cluster's address."""
    bench = await make_bench("epd")
    (tmp_path / "example.py").write_text(EXAMPLE.replace("127.0.0.1:50051", bench.address))
    said = await run_python(sys.executable, tmp_path / "example.py")
    assert len(said.rstrip("\n")) == 32


async def test_kserve(make_bench: MakeBench, tmp_path: Path) -> None:
    seen = await _ask("ask_kserve", "kserve", make_bench, tmp_path)
    assert (seen["live"], seen["ready"], seen["model_ready"]) == (True, True, True)
    assert seen["raw"] == seen["typed"]
    assert (seen["raw"]["finish_reason"], seen["raw"]["num_output_tokens"]) == (["length"], [6])
    assert (seen["raw_id"], seen["typed_id"]) == ("a", "a")


async def _ask(program: str, package: str, make_bench: MakeBench, folder: Path) -> dict[str, Any]:
    """What the program saw of a whole cluster, which is idle after that."""
    bench = await make_bench("e", "p", "d", gateway=True)
    (folder / "picture.png").write_bytes(picture())
    model = bench.coordinator.model.name
    seen = await run_program(program, bench.address, model, str(folder / "picture.png"), package=package)
    await bench.assert_idle()
    return seen
