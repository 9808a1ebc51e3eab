"""The addresses of the dashboard. Each app brings pages in its own `pages.py`: add rows here."""

from django.contrib.auth.views import LogoutView
from django.urls import path
from django.views import View

from tenants.console import home, overview

app_name = "console"

# Below /t/<tenant>/: each address with its name and its view. Views are ConsoleViews.
PAGES: list[tuple[str, str, type[View]]] = [
    ("", "overview", overview.OverviewView),
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
