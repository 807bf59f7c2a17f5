"""elasticmm ab stop: gives all instances back to the main policy set."""

from __future__ import annotations

from cli.ab.report import show
from cli.connection import admin_of, endpoint_of
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
    """Gives all instances back, and shows the last report."""
    with admin_of(
        endpoint_of(name, state_dir, address, token_file, as_json=as_json), as_json=as_json
    ) as admin:
        report = admin.stop_trial()
    show(report, as_json=as_json)
