"""Pages: an instance's backups, their schedule, and new instances made of them."""

from __future__ import annotations

from datetime import UTC
from typing import Any
from uuid import UUID

from django import forms
from django.http import HttpRequest, HttpResponse

from tenants.backups import selection
from tenants.backups.models import Backup, BackupState, Cadence
from tenants.backups.selectors import backup_get, backup_list, schedule_find
from tenants.backups.ways import way_of
from tenants.console.instance_view import InstanceView
from tenants.core.errors import ConflictError, NotFoundError
from tenants.instances.models import Instance

AT_A_MOMENT = "moment"
WEEKDAYS = [
    (0, "Monday"), (1, "Tuesday"), (2, "Wednesday"), (3, "Thursday"), (4, "Friday"),
    (5, "Saturday"), (6, "Sunday"),
]  # fmt: skip


class BackupForm(forms.Form):
    label = forms.CharField(max_length=80, required=False, help_text="Such as: before 4.2")
    keep_days = forms.IntegerField(
        min_value=1, required=False, label="Keep for days", help_text="Empty: until it is deleted."
    )

    def data_given(self) -> dict[str, Any]:
        """Return what was filled in."""
        return {name: value for name, value in self.cleaned_data.items() if value not in (None, "")}


class ScheduleForm(forms.Form):
    is_enabled = forms.BooleanField(required=False, label="Back up by this schedule")
    cadence = forms.ChoiceField(choices=Cadence.choices)
    hour = forms.IntegerField(min_value=0, max_value=23, label="Hour (UTC)")
    minute = forms.IntegerField(min_value=0, max_value=59)
    weekday = forms.TypedChoiceField(choices=WEEKDAYS, coerce=int, help_text="Of a weekly one.")
    keep_count = forms.IntegerField(min_value=1, label="Keep at least so many")
    keep_days = forms.IntegerField(min_value=1, label="Keep for days")
    archives_wal = forms.BooleanField(
        required=False, label="Archive the log, to restore to any second"
    )

    def __init__(self, *args: Any, engine: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if engine != "relational":
            del self.fields["archives_wal"]


class RestoreForm(forms.Form):
    source = forms.ChoiceField(label="From")
    time = forms.DateTimeField(
        required=False, label="Moment (UTC)", help_text="As 2026-11-25 10:41:07.",
        widget=forms.DateTimeInput(attrs={"placeholder": "2026-11-25 10:41:07"}),
    )  # fmt: skip
    name = forms.SlugField(
        max_length=32, label="Name of the new instance", help_text="The old one stays as it is."
    )

    def __init__(self, *args: Any, backups: list[Backup], can_choose: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choices = [(AT_A_MOMENT, "a moment of the restore window")] if can_choose else []
        choices += [(str(row.pk), _title(row)) for row in backups]
        self.fields["source"].choices = choices  # type: ignore[attr-defined]
        if not can_choose:
            del self.fields["time"]

    def clean(self) -> dict[str, Any]:
        given = super().clean() or {}
        if given.get("source") == AT_A_MOMENT and not given.get("time"):
            self.add_error("time", "Say which moment.")
        return given


class BackupsView(InstanceView):
    """The tab; `what` names the form that was sent."""

    actions = {"GET": "backups.read", "POST": "backups.read"}
    template = "backups/instance.html"

    def get(self, request: HttpRequest, instance: str) -> HttpResponse:
        return self._page()

    def post(self, request: HttpRequest, instance: str) -> HttpResponse:
        if request.POST.get("what") == "schedule":
            return self._schedule(request)
        form = BackupForm(request.POST)
        data = form.data_given() if form.is_valid() else {}
        answer = self.submit(form, "POST", "instance-backups", data, instance=instance)
        if answer is None:
            return self._page(form=form, status=422)
        return self.done("operation", answer.data["id"])

    def _schedule(self, request: HttpRequest) -> HttpResponse:
        form = ScheduleForm(request.POST, engine=self.instance.engine)
        handle = self.instance.handle
        if self.submit(form, "PATCH", "backup-schedule", instance=handle) is None:
            return self._page(schedule_form=form, status=422)
        return self.back("instance-backups", "The schedule is saved.")

    def _page(self, *, status: int = 200, **forms_given: Any) -> HttpResponse:
        rows = backup_list(tenant=self.actor.tenant).filter(instance=self.instance)
        backups, pager = self.paged(rows)
        schedule = schedule_find(instance=self.instance)
        fields = ScheduleForm.base_fields
        known = {name: getattr(schedule, name) for name in fields} if schedule else {}
        initial = {"cadence": "daily", "hour": 2, "minute": 0, "weekday": 0, "keep_count": 7,
                   "keep_days": 7, **known}  # fmt: skip
        context = {
            "backups": backups,
            "pager": pager,
            "schedule": schedule,
            "refusal": _refusal(self.instance),
            "window": selection.window_of(instance=self.instance),
            "form": BackupForm(),
            "schedule_form": ScheduleForm(initial=initial, engine=self.instance.engine),
        }
        return self.page({**context, **forms_given}, status=status)


class RestoreView(InstanceView):
    """A new instance from a backup, or from a moment of the restore window."""

    actions = {"GET": "backups.restore", "POST": "backups.restore"}
    template = "backups/restore.html"

    def get(self, request: HttpRequest, instance: str) -> HttpResponse:
        return self.page({"form": self._form(initial={"source": request.GET.get("backup", "")})})

    def post(self, request: HttpRequest, instance: str) -> HttpResponse:
        form = self._form(request.POST)
        if not form.is_valid():
            return self.page({"form": form}, status=422)
        given = form.cleaned_data
        data: dict[str, Any] = {"name": given["name"]}
        if given["source"] == AT_A_MOMENT:
            data["time"] = given["time"].astimezone(UTC)
            answer = self.submit(form, "POST", "instance-restore", data, instance=instance)
        else:
            answer = self.submit(form, "POST", "backup-restore", data, backup_id=given["source"])
        if answer is None:
            return self.page({"form": form}, status=422)
        return self.done("operation", answer.data["id"])

    def _form(self, *args: Any, **kwargs: Any) -> RestoreForm:
        rows = backup_list(tenant=self.actor.tenant)
        ready = list(rows.filter(instance=self.instance, state=BackupState.READY).order_by("-id"))
        has_window = bool(selection.window_of(instance=self.instance).ranges)
        return RestoreForm(*args, backups=ready[:100], can_choose=has_window, **kwargs)


class _BackupVerbView(InstanceView):
    """A button of a backup of this instance."""

    method = "POST"
    call = ""

    def post(self, request: HttpRequest, instance: str, backup_id: UUID) -> HttpResponse:
        found = backup_get(tenant=self.actor.tenant, backup_id=backup_id)
        if found.instance_id != self.instance.pk:
            raise NotFoundError("there is no such backup of this instance")
        answer = self.change(self.method, self.call, backup_id=backup_id)
        if answer.data and "id" in answer.data:
            return self.done("operation", answer.data["id"])
        return self.back("instance-backups", "The backup is deleted.")


class BackupVerifyView(_BackupVerbView):
    actions = {"POST": "backups.create"}
    call = "backup-verify"


class BackupDeleteView(_BackupVerbView):
    actions = {"POST": "backups.manage"}
    method = "DELETE"
    call = "backup"


def _title(row: Backup) -> str:
    label = f", {row.label}" if row.label else ""
    return f"{row.kind} of {row.created_at:%Y-%m-%d %H:%M:%S} UTC{label}"


def _refusal(instance: Instance) -> str:
    """Say why there are no backups of this engine; "" if there are."""
    try:
        way_of(instance)
    except ConflictError as error:
        return f"There is no way yet to make any: {error.message}."
    return ""
