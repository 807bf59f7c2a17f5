"""elasticmm cache stats: what the caches hold and did."""

from __future__ import annotations

import dataclasses

from cli.cache.table import show
from cli.connection import admin_of, endpoint_of
from cli.exits import print_json
from cli.options import AddressOption, JsonOption, NameOption, StateDirOption, TokenFileOption
from cli.state import DEFAULT_NAME


def run(
    *,
    address: AddressOption = None,
    as_json: JsonOption = False,
    name: NameOption = DEFAULT_NAME,
    state_dir: StateDirOption = None,
    token_file: TokenFileOption = None,
) -> None:
    """Shows what every instance keeps of KV and embeddings, hits, evictions by cause and seconds saved."""
    with admin_of(
        endpoint_of(name, state_dir, address, token_file, as_json=as_json), as_json=as_json
    ) as admin:
        cache = admin.cache()
    if as_json:
        print_json(dataclasses.asdict(cache))
    else:
        show(cache)
