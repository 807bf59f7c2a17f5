"""From a stage server's config to an emulated one."""

from __future__ import annotations

import dataclasses

from core.profile import Profile
from core.profile_file import load_profile
from kv_transfer.layout import PayloadKind
from kv_transfer.pace import LinkCosts, PacedLink
from kv_transfer.pool import EMBEDDING_BLOCK_TOKENS
from stage_servers.config import StageConfig
from stage_servers.emulation.model import EmulatedModel


def emulate(config: StageConfig, profile_name: str) -> tuple[StageConfig, EmulatedModel, PacedLink]:
    """The config with the profile's limits and time scale, and the model and link of its pace.

    Pools given in the config stay as they are. Raises ProfileError, ModelError.
    """
    profile = load_profile(profile_name)
    sized = dataclasses.replace(
        config,
        block_tokens=profile.block_tokens,
        chunk_tokens=profile.chunk_tokens,
        max_sequences=profile.max_sequences,
        kv_blocks=config.kv_blocks or max(1, profile.kv_tokens // profile.block_tokens),
        embedding_blocks=config.embedding_blocks
        or max(1, profile.embedding_tokens // EMBEDDING_BLOCK_TOKENS),
        threads=1,
        pull_timeout_s=config.pull_timeout_s * config.time_scale,
    )
    return (
        sized,
        EmulatedModel(config.model, profile, config.time_scale),
        make_link(profile, config.time_scale),
    )


def make_link(profile: Profile, time_scale: float) -> PacedLink:
    """A link as fast as the profile says, for tokens of the profile's size."""
    kv, embedding = profile.kv_move, profile.embedding_move
    return PacedLink(
        {
            PayloadKind.KV: LinkCosts(
                kv.setup_s * time_scale, profile.kv_bytes_per_token / kv.bytes_per_s * time_scale
            ),
            PayloadKind.EMBEDDING: LinkCosts(
                embedding.setup_s * time_scale,
                profile.embedding_bytes_per_token / embedding.bytes_per_s * time_scale,
            ),
        }
    )
