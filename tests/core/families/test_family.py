"""What a model folder says of itself, and what is wrong with it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from core.families import MediaLayout, ModelError, check_model, load_family
from core.families.folder import fingerprint
from tests.checkpoints import build_checkpoint


def edit(path: Path, **changed: Any) -> None:
    content = json.loads(path.read_text())
    content |= changed
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def test_facts(folder: Path) -> None:
    family = load_family(folder)
    config = json.loads((folder / "config.json").read_text())
    assert family.architecture == config["architectures"][0]
    assert family.context_tokens == 2048
    assert family.vocab_size == config["text_config"]["vocab_size"]
    assert family.eos_token_ids == {
        json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
    }
    assert family.placeholder_token_id == config["image_token_id"]
    assert family.placeholder_token_id in family.media_token_ids
    assert len(family.fingerprint) == 64


@pytest.mark.parametrize(
    "name",
    ["config.json", "tokenizer.json", "preprocessor_config.json", "model.safetensors", "chat_template.jinja"],
)
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(ModelError, match=f"lacks the file {name}"):
        load_family(copy)


def test_a_missing_shard_is_named(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    index = {"weight_map": {"lm_head.weight": "model-00001-of-00002.safetensors"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"lacks the file model-00001-of-00002\.safetensors"):
        load_family(copy)


def test_a_shard_outside_the_folder_is_refused(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy.parent / "elsewhere.safetensors")
    (copy / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"w": "../elsewhere.safetensors"}})
    )
    with pytest.raises(ModelError, match="lacks the file"):
        load_family(copy)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no such folder .*hf download"):
        load_family(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match="is no folder"):
        load_family(tmp_path / "file")


@pytest.mark.parametrize("architectures", [["SomeOtherModel"], [], None])
def test_an_unknown_architecture_is_named(copy: Path, architectures: list[str] | None) -> None:
    edit(copy / "config.json", architectures=architectures)
    with pytest.raises(ModelError, match="unknown architecture"):
        load_family(copy)


def test_an_unknown_architecture_is_named_before_a_file_that_other_families_lack(copy: Path) -> None:
    edit(copy / "config.json", architectures=["LlamaForCausalLM"])
    (copy / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match="unknown architecture LlamaForCausalLM"):
        check_model(copy)


def test_quantised_weights_are_refused(copy: Path) -> None:
    edit(copy / "config.json", quantization_config={"quant_method": "fp8"})
    with pytest.raises(ModelError, match="quantization_config: quantised weights are not served"):
        check_model(copy)


def test_a_truncated_config(copy: Path) -> None:
    (copy / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json: is no JSON"):
        load_family(copy)


def test_a_config_that_may_not_be_read(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ModelError, match=r"config\.json: cannot be read \(Permission denied\)"):
        check_model(copy)


def test_weights_that_are_none(copy: Path) -> None:
    (copy / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(ModelError, match="is no safetensors file"):
        load_family(copy)


def test_settings_in_the_newer_processor_file(copy: Path) -> None:
    settings = json.loads((copy / "preprocessor_config.json").read_text())
    (copy / "preprocessor_config.json").unlink()
    (copy / "processor_config.json").write_text(json.dumps({"image_processor": settings}))
    assert load_family(copy).patches == load_family(copy.parent / "copy").patches


def test_text_settings_at_the_top_as_in_older_configs(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    text = config.pop("text_config")
    (copy / "config.json").write_text(json.dumps(text | config))
    assert load_family(copy).context_tokens == 2048


def test_end_tokens_of_the_config_where_generation_is_silent(copy: Path) -> None:
    before = load_family(copy).eos_token_ids
    (copy / "generation_config.json").unlink()
    assert load_family(copy).eos_token_ids == before
    (copy / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 2]}))
    assert load_family(copy).eos_token_ids == {1, 2}


def test_fingerprint_tells_seeds_and_settings_apart(folder: Path, copy: Path, tmp_path: Path) -> None:
    assert fingerprint(copy) == fingerprint(folder)
    edit(copy / "preprocessor_config.json", image_mean=[0.5, 0.5, 0.5])
    other = build_checkpoint(tmp_path / "other", seed=1)
    assert len({fingerprint(folder), fingerprint(copy), fingerprint(other)}) == 3


def test_placeholders_are_expanded(folder: Path) -> None:
    family = load_family(folder)
    mark = family.placeholder_token_id
    items = [(b"a" * 32, MediaLayout((1, 4, 4), 4)), (b"b" * 32, MediaLayout((1, 2, 4), 2))]
    prompt, spans = family.expand_placeholders([1, mark, 2, mark], items)
    assert prompt == (1, mark, mark, mark, mark, 2, mark, mark)
    assert [(span.item_index, span.first_token, span.num_tokens, span.grid) for span in spans] == [
        (0, 1, 4, (1, 4, 4)),
        (1, 6, 2, (1, 2, 4)),
    ]
    assert [span.digest for span in spans] == [b"a" * 32, b"b" * 32]


def test_one_picture_in_two_sizes_is_known_by_two_names(folder: Path) -> None:
    family = load_family(folder)
    bounds = (None, 120 * 120, 121 * 121, 70 * 70)
    items = [(b"a" * 32, family.layout(300, 300, bound)) for bound in bounds]
    _, spans = family.expand_placeholders([family.placeholder_token_id] * 4, items)
    whole, small, same, smallest = spans
    assert small.identity == same.identity
    assert len({whole.identity, small.identity, smallest.identity}) == 3
    assert [span.max_pixels for span in spans[:2]] == [None, 120 * 120]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_placeholders_and_items_must_be_as_many(folder: Path, count: int) -> None:
    family = load_family(folder)
    items = [(bytes(32), MediaLayout((1, 2, 2), 1))] * count
    with pytest.raises(ValueError, match=f"2 media placeholders for {count} media items"):
        family.expand_placeholders([family.placeholder_token_id] * 2, items)


def test_torch_is_not_imported(folder: Path) -> None:
    code = (
        "import sys, pathlib; from core.families import load_family; "
        f"load_family(pathlib.Path({str(folder)!r})); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])
