"""The addresses of the dashboard. Each app brings pages in its own `pages.py`: add rows here."""

from django.contrib.auth.views import LogoutView
from django.urls import path
from django.views import View

from tenants.console import credential_pages as credentials
from tenants.console import home, overview
from tenants.console import instance_pages as instances
from tenants.console import operation_pages as operations
from tenants.iam import pages as iam

app_name = "console"

INSTANCE = "instances/<str:instance>"
CREDENTIAL = f"{INSTANCE}/credentials/<uuid:credential_id>"
OPERATION = "operations/<uuid:operation_id>"

# Below /t/<tenant>/: each address with its name and its view. Views are ConsoleViews.
PAGES: list[tuple[str, str, type[View]]] = [
    ("", "overview", overview.OverviewView),
    ("instances", "instances", instances.InstanceListView),
    ("instances/new", "instance-new", instances.InstanceCreateView),
    ("instances/new/price", "instance-price", instances.InstancePriceView),
    (INSTANCE, "instance", instances.ConnectView),
    (f"{INSTANCE}/credentials", "instance-credentials", credentials.CredentialsView),
    (f"{CREDENTIAL}/revoke", "credential-revoke", credentials.CredentialRevokeView),
    (f"{CREDENTIAL}/rotate", "instance-credentials-rotate", credentials.CredentialRotateView),
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
    ("iam", "iam", iam.ServiceIdsView),
    ("iam/check", "iam-check", iam.CheckView),
    ("iam/keys", "iam-keys", iam.KeysView),
    ("iam/keys/<uuid:key_id>", "iam-key", iam.KeyView),
    ("iam/policies", "iam-policies", iam.PoliciesView),
    ("iam/policies/new", "iam-policy-new", iam.PolicyFormView),
    ("iam/policies/<uuid:policy_id>/delete", "iam-policy", iam.PolicyView),
    ("iam/service-ids/<uuid:service_id>", "iam-service-id", iam.ServiceIdView),
    ("iam/service-ids/<uuid:service_id>/new-key", "iam-service-key", iam.ServiceKeyView),
    ("my-keys", "my-keys", iam.OwnKeysView),
    ("my-keys/<uuid:key_id>", "my-key", iam.OwnKeyView),
    ("places.json", "places", overview.PlacesView),
]

urlpatterns = [
    path("", home.home, name="home"),
    path("sign-in", home.SignInView.as_view(), name="sign-in"),
    path("sign-out", LogoutView.as_view(), name="sign-out"),
    path("invitations/<uidb64>/<token>", home.InvitationView.as_view(), name="invitation"),
    *(
        path(f"t/<str:tenant>/{address}", view.as_view(), name=name)
        for address, name, view in PAGES
    ),
]
