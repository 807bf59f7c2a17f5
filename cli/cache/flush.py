"""elasticmm cache flush: empties caches."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

from cli.connection import admin_of, endpoint_of
from cli.exits import print_json
from cli.options import AddressOption, JsonOption, NameOption, StateDirOption, TokenFileOption
from cli.state import DEFAULT_NAME


class Pool(Enum):
    KV = "kv"
    EMBEDDING = "embedding"


def run(
    *,
    tenant: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only what this tenant left. Default: all.")
    ] = None,
    pool: Annotated[Pool | None, typer.Option(help="Default: both.")] = None,
    instance: Annotated[
        str | None, typer.Option(metavar="INSTANCE", help="As 'elasticmm status' names it. Default: all.")
    ] = None,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="For the audit log.")] = "",
    address: AddressOption = None,
    as_json: JsonOption = False,
    name: NameOption = DEFAULT_NAME,
    state_dir: StateDirOption = None,
    token_file: TokenFileOption = None,
) -> None:
    """Has instances forget what they keep. What requests use goes when they end, and no other finds it."""
    with admin_of(
        endpoint_of(name, state_dir, address, token_file, as_json=as_json), as_json=as_json
    ) as admin:
        told = admin.flush_cache(
            tenant=tenant, pool=None if pool is None else pool.value, instance_id=instance, reason=reason
        )
    if as_json:
        print_json({"instances": told})
    else:
        print(f"told to forget: {', '.join(told)}" if told else "no instance is there")
