"""Every kind of operation and its steps, alphabetical.

The functions are `instances/steps.py`, those of export and import `instances/transfer_steps.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from tenants.instances import steps, transfer_steps
from tenants.instances.models import InstanceStatus as S
from tenants.operations.job import Kind, Step

KINDS: Mapping[str, Kind] = {
    "delete": Kind(
        starts_from=frozenset({S.PROVISIONING, S.ACTIVE, S.SUSPENDED, S.FAILED}),
        steps=(
            Step("quarantine", "Refuse clients and ask the host to stop", steps.quarantine),
            Step("server", "Wait until the server has stopped", steps.server_is_stopped),
        ),
        # The way back is undelete: it also works after the operation has ended.
        is_cancellable=False,
        reopen=steps.ask_stop,
    ),
    "export": Kind(
        starts_from=frozenset({S.ACTIVE}),
        steps=(
            Step("request", "Ask the host to save the data", transfer_steps.ask_export),
            Step("save", "Wait until the file is written", transfer_steps.export_is_written),
        ),
        deadline=timedelta(hours=1),
        reopen=transfer_steps.ask_export,
        ended=transfer_steps.export_ended,
    ),
    "import": Kind(
        starts_from=frozenset({S.ACTIVE}),
        steps=(
            Step("request", "Ask the host to read the file", transfer_steps.ask_import),
            Step("load", "Load the file beside the data", transfer_steps.import_is_loaded),
            Step("switch", "Put the new data in place", transfer_steps.import_is_in_place),
        ),
        deadline=timedelta(hours=1),
        reopen=transfer_steps.ask_import,
        ended=transfer_steps.import_ended,
        before_cancel=transfer_steps.take_import_back,
    ),
    "provision": Kind(
        starts_from=frozenset({S.PROVISIONING, S.FAILED}),
        steps=(
            Step("request", "Ask the host for a server", steps.request_new, steps.ask_absent),
            Step("server", "Wait until the server runs", steps.server_is_running),
            Step("activate", "Let clients in", steps.activate_new),
        ),
        reopen=steps.request_new,
        ended=steps.provision_ended,
    ),
    "purge": Kind(
        # PURGING: the last purge failed, of a host that was away for one.
        starts_from=frozenset({S.QUARANTINED, S.PURGING}),
        steps=(
            Step("seal", "Ask the host to remove the data", steps.seal),
            Step("server", "Wait until nothing is left", steps.server_is_absent),
            Step("forget", "Forget credentials and record", steps.forget),
        ),
        is_cancellable=False,
        reopen=steps.ask_absent,
    ),
    "resume": Kind(
        starts_from=frozenset({S.SUSPENDED}),
        steps=(
            Step("request", "Ask the host to start", steps.ask_run, steps.ask_stop),
            Step("server", "Wait until the server runs", steps.server_is_running),
            Step("activate", "Let clients in", steps.activate_suspended),
        ),
        reopen=steps.ask_run,
        ended=steps.return_ended,
    ),
    "rotate": Kind(
        starts_from=frozenset({S.PROVISIONING, S.ACTIVE, S.SUSPENDED, S.FAILED}),
        steps=(
            Step("issue", "Issue a new secret", steps.secret_is_issued, steps.take_back_secret),
            Step("grace", "Let the old secret live on", steps.old_secret_has_expired),
            Step("retire", "Drop the old secret", steps.retire_secret),
        ),
        # It waits for hours, up to services' GRACE_MAX, and touches one credential only.
        is_exclusive=False,
        deadline=timedelta(days=31),
    ),
    "suspend": Kind(
        starts_from=frozenset({S.ACTIVE}),
        steps=(
            Step("close", "Refuse clients and ask the host to stop", steps.close, steps.reopen),
            Step("server", "Wait until the server has stopped", steps.server_is_stopped),
        ),
        reopen=steps.ask_stop,
    ),
    "undelete": Kind(
        starts_from=frozenset({S.QUARANTINED}),
        steps=(
            Step("request", "Ask the host to start", steps.ask_run, steps.ask_stop),
            Step("server", "Wait until the server runs", steps.server_is_running),
            Step("activate", "Let clients in", steps.activate_quarantined),
        ),
        reopen=steps.ask_run,
        ended=steps.return_ended,
    ),
}
