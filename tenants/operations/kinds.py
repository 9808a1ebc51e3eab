"""Every kind of operation and its steps, alphabetical.

The functions are `instances/steps.py`, those of export and import `instances/transfer_steps.py`,
those with backups `backups/steps.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from tenants.backups import steps as backup_steps
from tenants.instances import steps, transfer_steps
from tenants.instances.models import InstanceStatus as S
from tenants.operations.job import Kind, Step

# Bytes go at some 50 MB/s, and a large instance has many.
BYTES_DEADLINE = timedelta(hours=24)

# How an instance is made of stored files, once it has been picked which.
RESTORE_STEPS = (
    Step("pick", "Choose the stored files", backup_steps.pick),
    Step("request", "Ask the host for a server", steps.request_new, steps.ask_absent),
    Step("server", "Wait until the server runs", steps.server_is_running),
    Step("fetch", "Fetch and decrypt the files", backup_steps.is_staged),
    Step("load", "Ask the host to load them", backup_steps.ask_load),
    Step("prepare", "Load the files beside the data", backup_steps.is_loaded),
    Step("switch", "Put the loaded data in place", backup_steps.is_in_place),
    Step("activate", "Let clients in", steps.activate_new),
)

KINDS: Mapping[str, Kind] = {
    "backup": Kind(
        starts_from=frozenset({S.ACTIVE}),
        steps=(
            Step("parent", "Choose what to build on", backup_steps.pick_parent),
            Step("fetch", "Fetch what the host needs of it", backup_steps.is_staged),
            Step("request", "Ask the host to save the data", backup_steps.ask_save),
            Step("save", "Wait until the data are saved", backup_steps.is_saved),
            Step("store", "Encrypt and store what was saved", backup_steps.is_shipped),
            Step("keep", "Keep the backup", backup_steps.keep),
        ),
        deadline=BYTES_DEADLINE,
        reopen=backup_steps.save_again,
        ended=backup_steps.save_ended,
    ),
    "clone": Kind(
        starts_from=frozenset({S.PROVISIONING, S.FAILED}),
        steps=(
            Step("snapshot", "Wait for the source's backup", backup_steps.snapshot_is_taken),
            *RESTORE_STEPS,
            Step("drop", "Drop the source's backup", backup_steps.drop_snapshot),
        ),
        deadline=BYTES_DEADLINE,
        reopen=backup_steps.restore_again,
        ended=backup_steps.restore_ended,
        before_cancel=backup_steps.take_restore_back,
    ),
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
    "hibernate": Kind(
        starts_from=frozenset({S.ACTIVE}),
        steps=(
            Step("request", "Ask the host to let it sleep", steps.ask_sleep, steps.forget_sleep),
            Step("server", "Wait until nobody is connected and it sleeps", steps.server_sleeps),
            Step("settle", "Let its plan decide from now on", steps.forget_sleep),
        ),
        deadline=timedelta(minutes=2),
        reopen=steps.ask_sleep,
        ended=steps.sleep_ended,
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
    "restore": Kind(
        starts_from=frozenset({S.PROVISIONING, S.FAILED}),
        steps=RESTORE_STEPS,
        deadline=BYTES_DEADLINE,
        reopen=backup_steps.restore_again,
        ended=backup_steps.restore_ended,
        before_cancel=backup_steps.take_restore_back,
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
            Step(
                "issue",
                "Issue a new secret",
                steps.secret_is_issued,
                steps.take_back_secret,
                is_done_at_start=True,
            ),
            Step("grace", "Let the old secret live on", steps.old_secret_has_expired),
            Step("retire", "Drop the old secret", steps.retire_secret),
        ),
        # It waits for hours, up to services' GRACE_MAX, and touches one credential only.
        is_exclusive=False,
        deadline=timedelta(days=31),
    ),
    "scale": Kind(
        starts_from=frozenset({S.ACTIVE, S.SUSPENDED}),
        steps=(
            Step(
                "assign",
                "Give it the plan",
                steps.plan_is_assigned,
                steps.take_back_plan,
                is_done_at_start=True,
            ),
            Step("server", "Wait until the server has followed", steps.host_has_followed),
        ),
        reopen=steps.assign_again,
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
    "verify": Kind(
        starts_from=frozenset({S.ACTIVE, S.SUSPENDED}),
        steps=(
            Step("pick", "Choose the stored files", backup_steps.pick),
            Step("fetch", "Fetch and decrypt the files", backup_steps.is_staged),
            Step("load", "Ask the host to load them", backup_steps.ask_verify),
            Step("prepare", "Load the files beside the data", backup_steps.is_loaded),
            Step("compare", "Compare with what was saved", backup_steps.is_as_saved),
        ),
        deadline=BYTES_DEADLINE,
        reopen=backup_steps.verify_again,
        ended=backup_steps.verify_ended,
    ),
    "wake": Kind(
        starts_from=frozenset({S.ACTIVE}),
        steps=(
            Step("request", "Ask the host to start", steps.ask_run),
            Step("server", "Wait until the server runs", steps.server_is_running),
        ),
        reopen=steps.ask_run,
    ),
}
