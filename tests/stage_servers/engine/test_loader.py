"""Loading: what is wrong is named, dtypes are right, and processes share one copy."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.families import load_family
from stage_servers.config import ATTENTIONS, StageConfig
from stage_servers.engine import converted
from stage_servers.engine.attention.registry import backend_names
from stage_servers.engine.loader import ModelError, load_model
from stage_servers.server import model_fits
from tests.exactness import make_question, make_spec
from tests.stage_servers.engine.conftest import Pair
from tests.stage_servers.engine.harness import Bench, answer_all


@pytest.fixture
def copy(first: Pair, tmp_path: Path) -> Path:
    return Path(shutil.copytree(first.path, tmp_path / "copy"))


@pytest.fixture
def alone(copy: Path) -> Path:
    """With a fingerprint that no process but this one knows."""
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"_name_or_path": str(copy)}))
    return copy


def test_shape_of_the_model(pair: Pair) -> None:
    model = pair.model
    assert (model.num_layers, model.num_kv_heads, model.head_dim, model.hidden_size) == (3, 2, 16, 64)
    assert model.embedding_width in (64, 192)
    assert (model.kv_planes, model.kv_token_elements) == (6, 32)
    assert model.attention_backend == "native"
    assert pair.plain_model.attention_backend == "sdpa"
    assert model.fingerprint == load_family(pair.path).fingerprint


def test_buffers_equal_those_of_transformers(pair: Pair) -> None:
    ours = dict(pair.model.family.model.named_buffers())
    theirs = dict(pair.oracle.model.named_buffers())
    assert ours.keys() == theirs.keys()
    for name, buffer in theirs.items():
        assert torch.equal(ours[name], buffer)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"dtype": "int8"}, "dtype: 'int8'"),
        ({"device": "tpu"}, "device: 'tpu'"),
        ({"device": "cuda:99"}, "device: cuda:99 is not here"),
        ({"attention": "magic"}, "attention: unknown backend 'magic'"),
        ({"attention": "flash_attn"}, "flash_attn cannot run on cpu: it needs a CUDA device"),
        ({"attention": "triton"}, "triton cannot run on cpu"),
    ],
)
def test_settings_that_cannot_be_met(first: Pair, setting: dict[str, str], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_model(first.path, **setting)  # type: ignore[arg-type]


def test_a_missing_weight_is_named(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, copy / "model.safetensors")
    with pytest.raises(ModelError, match=r"lacks the weight lm_head\.weight"):
        load_model(copy)


def test_a_misshapen_weight_is_named(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    weights["lm_head.weight"] = weights["lm_head.weight"][1:].clone()
    save_file(weights, copy / "model.safetensors")
    with pytest.raises(ModelError, match=r"the weight lm_head\.weight has shape"):
        load_model(copy)


def test_weights_in_shards(first: Pair, copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    names = sorted(weights)
    places = {}
    for number, part in enumerate((names[::2], names[1::2])):
        file = f"model-{number}.safetensors"
        save_file({name: weights[name] for name in part}, copy / file)
        places |= dict.fromkeys(part, file)
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    sharded = dict(load_model(copy).family.model.named_parameters())
    for name, weight in first.model.family.model.named_parameters():
        assert torch.equal(weight, sharded[name])


@pytest.mark.parametrize("fast_path", [True, False])
def test_bfloat16_converts_once_and_runs(first: Pair, alone: Path, fast_path: bool) -> None:
    name = f"{converted.PREFIX}{load_family(alone).fingerprint}-bfloat16"
    model = load_model(alone, dtype="bfloat16", fast_path=fast_path)
    try:
        assert (converted.SHARED_FOLDER / name).is_file()
        assert {weight.dtype for weight in model.family.model.parameters()} == {torch.bfloat16}
        question = make_question(first.oracle.family, 1, pictures=[(112, 112)])
        bench, spec = Bench(model), make_spec(first.oracle.family, question, "r", max_tokens=20)
        answer_all(bench, [spec], [question])
        assert len(bench.tokens[spec.key]) == 20
        agreed = zip(bench.tokens[spec.key], first.oracle.answer(question, 128).tokens, strict=False)
        assert next(agreed)[0] == first.oracle.answer(question, 128).tokens[0]
    finally:
        model.close()
    assert not (converted.SHARED_FOLDER / name).exists()


def weights_in(pid: int, path: str) -> tuple[int, int]:
    """(resident, private) KB of the mappings of a file in a process."""
    resident = private = 0
    is_ours = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        word, *rest = line.split()
        if "-" in word and not word.endswith(":"):
            is_ours = bool(rest) and rest[-1] == path
        elif is_ours and word == "Rss:":
            resident += int(rest[0])
        elif is_ours and word in ("Private_Dirty:",):
            private += int(rest[0])
    return resident, private


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux's smaps")
def test_mapped_weights_are_no_private_memory(first: Pair) -> None:
    """However much it computes, a process dirties no page of the weights: all share the page cache's."""
    bench, question = Bench(first.model), first.question(1, pictures=[(112, 112)])
    answer_all(bench, [make_spec(first.oracle.family, question, "r", max_tokens=4)], [question])
    resident, private = weights_in(os.getpid(), str(first.path / "model.safetensors"))
    assert resident > 500
    assert private == 0


HOLDER = """
import sys, torch
from pathlib import Path
from stage_servers.engine.converted import share_converted
weights = {"a": torch.arange(1000.0).view(10, 100), "b": torch.ones(3)}
held = share_converted("test", weights, torch.bfloat16, Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
"""


def hold(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLDER, str(folder)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_the_shared_copy_lives_as_long_as_its_last_user(tmp_path: Path) -> None:
    weights = {"a": torch.arange(1000.0).view(10, 100), "b": torch.ones(3)}
    with hold(tmp_path) as other:
        mine = converted.share_converted("test", weights, torch.bfloat16, tmp_path)
        assert torch.equal(load_file(mine.path)["a"], weights["a"].bfloat16())
        before = mine.path.stat().st_ino
        mine.close()
        assert mine.path.stat().st_ino == before
        converted.remove_unused(tmp_path)
        assert mine.path.exists()
        assert other.stdin is not None
        other.stdin.close()
    assert not mine.path.exists()


def test_the_copy_of_a_killed_user_is_removed(tmp_path: Path) -> None:
    with hold(tmp_path) as other:
        other.kill()
    assert list(tmp_path.iterdir())
    converted.remove_unused(tmp_path)
    assert not list(tmp_path.iterdir())


def test_no_room_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_fd: int, _start: int, _size: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(OSError, match="no space"):
        converted.share_converted("test", {"a": torch.ones(3)}, torch.bfloat16, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_model_loaded_before_the_fork_is_not_taken_for_another_backend(pair: Pair) -> None:
    def fits(attention: str) -> bool:
        return model_fits(pair.plain_model, StageConfig(pair.path, "host:1", "t", attention=attention))

    assert pair.plain_model.attention_backend == "sdpa"
    assert (fits("auto"), fits("sdpa"), fits("native")) == (True, True, False)


def test_settings_name_every_attention_backend() -> None:
    assert ("auto", *backend_names()) == ATTENTIONS
