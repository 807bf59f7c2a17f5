"""The derived profiles are what their public figures give, and those are of the size that is published."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from core.profile import Profile
from core.profile_file import SHIPPED, format_profile, load_profile, shipped_profiles
from profiles.derive import all_derived
from profiles.models import LLAMA, QWEN, VALUE_BYTES, Model

DERIVED = all_derived()
WIDE, TEXT_TOKENS = (1280, 720), 63


@pytest.mark.parametrize("profile", DERIVED, ids=lambda profile: profile.name)
def test_the_committed_file_is_what_the_figures_give(profile: Profile) -> None:
    assert (SHIPPED / f"{profile.name}.json").read_text() == format_profile(profile)
    assert profile.origin == "derived"


@pytest.mark.parametrize(("model", "published"), [(QWEN, 8.29e9), (LLAMA, 10.67e9)])
def test_parameters_add_up_to_the_published_number(model: Model, published: float) -> None:
    assert model.weight_bytes / VALUE_BYTES == pytest.approx(published, rel=0.01)


@pytest.mark.parametrize("profile", DERIVED, ids=lambda profile: profile.name)
def test_costs_are_of_a_plausible_size(profile: Profile) -> None:
    media = profile.media.media_tokens(*WIDE)
    assert 0.005 < profile.step.decode_step_s(1, 1000) < 0.02
    assert 0.005 < profile.encode.encode_s(media) < 0.3
    assert 0.005 < profile.prefill_s(TEXT_TOKENS, media) < 0.3
    assert 64 < profile.step.tipping_tokens() < 512


def test_only_cross_attention_keeps_media_out_of_the_sequence() -> None:
    shares = {profile.model: profile.cross_attention_share for profile in DERIVED}
    assert shares == {QWEN.name: None, LLAMA.name: 8 / 32}


def test_the_faster_device_is_faster() -> None:
    slow, fast = load_profile("a800-qwen2.5-vl-7b"), load_profile("h100-qwen2.5-vl-7b")
    assert fast.step.decode_step_s(32, 9999) < slow.step.decode_step_s(32, 9999)
    assert fast.prefill_s(999) < slow.prefill_s(999)
    assert fast.encode.encode_s(999) < slow.encode.encode_s(999)


def test_derived_files_are_all_that_say_so() -> None:
    said = {name for name in shipped_profiles() if load_profile(name).origin == "derived"}
    assert said == {profile.name for profile in DERIVED}


def test_the_wheel_takes_the_profiles_along() -> None:
    project = tomllib.loads((Path(SHIPPED).parent / "pyproject.toml").read_text())
    assert "profiles" in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
