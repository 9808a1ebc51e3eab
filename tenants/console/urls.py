"""The addresses of the dashboard. Each app brings pages in its own `pages.py`: add rows here."""

from django.contrib.auth.views import LogoutView
from django.urls import path
from django.views import View

from tenants.console import home, overview
from tenants.iam import pages as iam

app_name = "console"

# Below /t/<tenant>/: each address with its name and its view. Views are ConsoleViews.
PAGES: list[tuple[str, str, type[View]]] = [
    ("", "overview", overview.OverviewView),
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
