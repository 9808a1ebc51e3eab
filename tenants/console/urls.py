"""The addresses of the dashboard. Each app brings pages in its own `pages.py`: add rows here."""

from allauth.account.views import logout
from django.urls import path
from django.views import View

from tenants.accounts import account_pages, entrance, member_pages
from tenants.audit import pages as audit
from tenants.backups import pages as backups
from tenants.billing import pages as billing
from tenants.console import credential_pages as credentials
from tenants.console import instance_pages as instances
from tenants.console import operation_pages as operations
from tenants.console import overview
from tenants.console.explorer import page as explorer
from tenants.iam import pages as iam
from tenants.webhooks import pages as webhooks

app_name = "console"

INSTANCE = "instances/<str:instance>"
BACKUP = f"{INSTANCE}/backups/<uuid:backup_id>"
CREDENTIAL = f"{INSTANCE}/credentials/<uuid:credential_id>"
OPERATION = "operations/<uuid:operation_id>"

# Below /t/<tenant>/: each address with its name and its view. Views are ConsoleViews.
PAGES: list[tuple[str, str, type[View]]] = [
    ("", "overview", overview.OverviewView),
    ("instances", "instances", instances.InstanceListView),
    ("instances/new", "instance-new", instances.InstanceCreateView),
    ("instances/new/price", "instance-price", instances.InstancePriceView),
    (INSTANCE, "instance", instances.ConnectView),
    (f"{INSTANCE}/backups", "instance-backups", backups.BackupsView),
    (f"{BACKUP}/delete", "backup-delete", backups.BackupDeleteView),
    (f"{BACKUP}/verify", "backup-verify", backups.BackupVerifyView),
    (f"{INSTANCE}/restore", "instance-restore", backups.RestoreView),
    (f"{INSTANCE}/credentials", "instance-credentials", credentials.CredentialsView),
    (f"{CREDENTIAL}/revoke", "credential-revoke", credentials.CredentialRevokeView),
    (f"{CREDENTIAL}/rotate", "instance-credentials-rotate", credentials.CredentialRotateView),
    (f"{INSTANCE}/data", "instance-data", explorer.DataView),
    (f"{INSTANCE}/delete", "instance-delete", instances.DeleteView),
    (f"{INSTANCE}/metrics", "instance-metrics", instances.MetricsView),
    (f"{INSTANCE}/metrics.json", "instance-series", instances.SeriesView),
    (f"{INSTANCE}/operations", "instance-operations", operations.InstanceOperationsView),
    (f"{INSTANCE}/resume", "instance-resume", instances.ResumeView),
    (f"{INSTANCE}/settings", "instance-settings", instances.SettingsView),
    (f"{INSTANCE}/settings/price", "instance-settings-price", instances.PlanPriceView),
    (f"{INSTANCE}/state", "instance-state", instances.StateView),
    (f"{INSTANCE}/suspend", "instance-suspend", instances.SuspendView),
    (f"{INSTANCE}/undelete", "instance-undelete", instances.UndeleteView),
    ("operations", "operations", operations.OperationListView),
    (OPERATION, "operation", operations.OperationView),
    (f"{OPERATION}/cancel", "operation-cancel", operations.OperationCancelView),
    (f"{OPERATION}/reset", "operation-reset", operations.OperationResetView),
    (f"{OPERATION}/retry", "operation-retry", operations.OperationRetryView),
    ("audit", "audit", audit.EventsView),
    ("audit/data-events", "audit-data", audit.DataEventsView),
    ("audit/drains", "audit-drains", audit.DrainsView),
    ("audit/drains/<uuid:drain_id>", "audit-drain", audit.DrainView),
    ("audit/events/<uuid:event_id>", "audit-event", audit.EventView),
    ("audit/integrity", "audit-integrity", audit.IntegrityView),
    ("billing", "billing", billing.MonthView),
    ("billing/budgets", "billing-budgets", billing.BudgetsView),
    ("billing/budgets/<uuid:budget_id>", "billing-budget", billing.BudgetView),
    ("billing/cost-report", "billing-cost-report", billing.CostReportView),
    ("billing/invoices", "billing-invoices", billing.InvoicesView),
    ("billing/invoices/<uuid:invoice_id>", "billing-invoice", billing.InvoiceView),
    ("billing/invoices/<uuid:invoice_id>/csv", "billing-invoice-csv", billing.InvoiceCsvView),
    ("billing/usage", "billing-usage", billing.UsageView),
    ("billing/usage.json", "billing-series", billing.SeriesView),
    ("iam", "iam", iam.ServiceIdsView),
    ("iam/check", "iam-check", iam.CheckView),
    ("iam/keys", "iam-keys", iam.KeysView),
    ("iam/keys/<uuid:key_id>", "iam-key", iam.KeyView),
    ("iam/policies", "iam-policies", iam.PoliciesView),
    ("iam/policies/new", "iam-policy-new", iam.PolicyFormView),
    ("iam/policies/<uuid:policy_id>/delete", "iam-policy", iam.PolicyView),
    ("iam/service-ids/<uuid:service_id>", "iam-service-id", iam.ServiceIdView),
    ("iam/service-ids/<uuid:service_id>/new-key", "iam-service-key", iam.ServiceKeyView),
    ("members", "members", member_pages.MembersView),
    ("members/<uuid:member_id>", "member", member_pages.MemberView),
    ("members/leave", "leave", member_pages.LeaveView),
    ("members/invitations/<uuid:invitation_id>", "invited", member_pages.InvitedView),
    ("my-keys", "my-keys", iam.OwnKeysView),
    ("my-keys/<uuid:key_id>", "my-key", iam.OwnKeyView),
    ("settings", "tenant-settings", member_pages.SettingsView),
    ("webhooks", "webhooks", webhooks.WebhooksView),
    ("webhooks/<uuid:webhook_id>", "webhook", webhooks.WebhookView),
    ("webhooks/<uuid:webhook_id>/<uuid:delivery_id>", "webhook-redeliver", webhooks.DeliveryView),
    ("places.json", "places", overview.PlacesView),
]

urlpatterns = [
    path("", account_pages.HomeView.as_view(), name="home"),
    path("sign-in", entrance.SignInView.as_view(), name="sign-in"),
    path("sign-out", logout, name="sign-out"),
    path(
        "invitations/<uuid:invitation_id>/<str:token>",
        entrance.InvitationView.as_view(),
        name="invitation",
    ),
    *(
        path(f"t/<str:tenant>/{address}", view.as_view(), name=name)
        for address, name, view in PAGES
    ),
]
