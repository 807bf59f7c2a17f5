"""elasticmm shadow start: from now on a second policy set decides, too."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.connection import admin_of, endpoint_of
from cli.exits import print_json
from cli.options import AddressOption, JsonOption, NameOption, StateDirOption, TokenFileOption
from cli.state import DEFAULT_NAME


def run(
    policy: Annotated[str, typer.Argument(metavar="SET", help="As of 'elasticmm up --policy'.")],
    *,
    address: AddressOption = None,
    as_json: JsonOption = False,
    name: NameOption = DEFAULT_NAME,
    state_dir: StateDirOption = None,
    token_file: TokenFileOption = None,
) -> None:
    """Has SET see all that the acting policies see, and decide without acting, until 'shadow stop'."""
    with admin_of(
        endpoint_of(name, state_dir, address, token_file, as_json=as_json), as_json=as_json
    ) as admin:
        admin.start_shadow(policy)
    if as_json:
        print_json({"shadow": policy})
    else:
        print(f"{policy} is in the shadow: elasticmm shadow status, elasticmm why --shadow")
