"""elasticmm down: ends the cluster that `up` started, and makes sure that nothing is left."""

from __future__ import annotations

import signal

from cli.exits import FAILED, UNREACHABLE, fail, print_json
from cli.options import JsonOption, NameOption, StateDirOption
from cli.state import DEFAULT_NAME, ClusterRecord, find_state_dir

_GRACE_S = 20.0


def run(
    *,
    as_json: JsonOption = False,
    name: NameOption = DEFAULT_NAME,
    state_dir: StateDirOption = None,
) -> None:
    """Ends the cluster: running requests fail, every process ends, shared memory is freed."""
    state = find_state_dir(state_dir, name)
    try:
        record = state.read_record()
    except ValueError as error:
        fail(str(error), as_json=as_json)
    if record is None:
        fail(f"no cluster is up on {state.path}", UNREACHABLE, as_json=as_json)
    from cli.endpoint import find_token

    forced = end_cluster(record, find_token(None, state), as_json=as_json)
    state.clear()
    if as_json:
        print_json({"address": record.address, "ended": True, "forced": forced})
    else:
        print("\n".join([*forced, f"the cluster at {record.address} is down"]))


def end_cluster(record: ClusterRecord, token: str | None, *, as_json: bool = False) -> list[str]:
    """Asks, waits, then forces; returns what had to be forced. Exits 1 if a process survives."""
    from cli.launch.remains import find_segments, remove_segments, signal_all, wait_gone, with_descendants

    processes = with_descendants(record.processes)
    ask_to_end(record, token)
    stubborn = wait_gone(processes, _GRACE_S)
    signal_all(stubborn, signal.SIGKILL)
    survivors = wait_gone(stubborn, _GRACE_S)
    if survivors:
        names = ", ".join(f"{each.name} (pid {each.pid})" for each in survivors)
        fail(f"still running: {names}", FAILED, as_json=as_json)
    segments = find_segments(record.cluster, (*record.processes, *processes))
    remove_segments(segments)
    return [f"{each.name} (pid {each.pid}) was killed" for each in stubborn] + [
        f"{path} was removed" for path in segments
    ]


def ask_to_end(record: ClusterRecord, token: str | None) -> None:
    """Over the wire; where nobody answers, by a signal to the supervisor, which ends the rest."""
    from cli.endpoint import find_tls
    from cli.launch.remains import signal_all
    from elasticmm_client import AdminClient, ElasticMMError

    try:
        with AdminClient(record.address, token, tls=find_tls(record.tls)) as admin:
            admin.shutdown(timeout_s=5)
    except (ElasticMMError, ValueError):  # ValueError: its certificates are gone
        signal_all(record.processes[:1], signal.SIGTERM)
