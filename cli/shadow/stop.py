"""elasticmm shadow stop: ends the shadow, with its last report."""

from __future__ import annotations

from cli.connection import admin_of, endpoint_of
from cli.options import AddressOption, JsonOption, NameOption, StateDirOption, TokenFileOption
from cli.shadow.report import show
from cli.state import DEFAULT_NAME


def run(
    *,
    address: AddressOption = None,
    as_json: JsonOption = False,
    name: NameOption = DEFAULT_NAME,
    state_dir: StateDirOption = None,
    token_file: TokenFileOption = None,
) -> None:
    """Ends the shadow, and shows its last report."""
    with admin_of(
        endpoint_of(name, state_dir, address, token_file, as_json=as_json), as_json=as_json
    ) as admin:
        report = admin.stop_shadow()
    show(report, as_json=as_json)
