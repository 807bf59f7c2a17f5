from __future__ import annotations

import pytest

from kv_transfer.in_place.offer import EmbeddingOffer, consecutive, offer_from, offer_to
from tests.kv_transfer.loopback import EMBEDDING, KEY

OFFER = EmbeddingOffer(
    key=KEY,
    item_index=2,
    num_tokens=40,
    layout=EMBEDDING,
    num_blocks=8,
    blocks=range(3, 6),
    segment="/dev/shm/elasticmm-x",
    host_id="host",
    sender_instance_id="sender",
    sender_epoch=5,
    receiver_epoch=7,
    offer_id=9,
)


def test_an_offer_survives_the_wire() -> None:
    assert offer_from(offer_to(OFFER)) == OFFER


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("request_id", ""),
        ("num_tokens", 0),
        ("num_tokens", 49),
        ("block_ids", []),
        ("block_ids", [3, 5]),
        ("num_blocks", 5),
    ],
)
def test_a_wrong_field_is_named(field: str, value: object) -> None:
    message = offer_to(OFFER)
    message.ClearField(field)  # type: ignore[arg-type]
    if isinstance(value, list):
        message.block_ids.extend(value)
    else:
        setattr(message, field, value)
    with pytest.raises(ValueError, match="block_ids" if field == "num_blocks" else field):
        offer_from(message)


def test_consecutive_blocks_are_a_range() -> None:
    assert consecutive([4, 5, 6]) == range(4, 7)
    assert consecutive([4, 6]) is None
    assert consecutive([]) is None
