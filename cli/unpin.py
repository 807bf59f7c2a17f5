"""elasticmm unpin: leaves an instance to the policies again."""

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
    """Undoes pin: the policies decide again what INSTANCE plays."""
    with admin_of(
        endpoint_of(name, state_dir, address, token_file, as_json=as_json), as_json=as_json
    ) as admin:
        admin.unpin(instance)
    if as_json:
        print_json({"instance": instance})
    else:
        print(f"{instance} is left to the policies")
