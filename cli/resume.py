"""elasticmm resume: gives a drained instance work again."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.connection import admin_of, endpoint_of
from cli.exits import print_json
from cli.options import AddressOption, JsonOption, NameOption, StateDirOption, TokenFileOption
from cli.state import DEFAULT_NAME


def run(
    instance: Annotated[str, typer.Argument(metavar="INSTANCE", help="As 'elasticmm status' names it.")],
    *,
    address: AddressOption = None,
    as_json: JsonOption = False,
    name: NameOption = DEFAULT_NAME,
    state_dir: StateDirOption = None,
    token_file: TokenFileOption = None,
) -> None:
    """Undoes drain: INSTANCE takes work again."""
    with admin_of(
        endpoint_of(name, state_dir, address, token_file, as_json=as_json), as_json=as_json
    ) as admin:
        admin.resume(instance)
    if as_json:
        print_json({"instance": instance})
    else:
        print(f"{instance} takes work again")
