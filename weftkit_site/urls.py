"""Every address of the control plane: health, the REST API, the dashboard."""

from django.urls import include, path

from tenants.core import health
from tenants.iam import views as iam

urlpatterns = [
    path("healthz", health.live, name="healthz"),
    path("readyz", health.ready, name="readyz"),
    path("api/v1/", include("tenants.api.urls")),
    path("identity/token", iam.identity_token, name="identity-token"),
    path("oidc/token", iam.identity_token),  # where very old SDKs look for it
    path("identity/keys", iam.identity_keys, name="identity-keys"),
    path("", include("tenants.accounts.urls")),
    path("", include("tenants.console.urls")),
]

handler400 = "tenants.core.problems.page_bad_request"
handler404 = "tenants.core.problems.page_not_found"
handler500 = "tenants.core.problems.page_failed"
