"""The addresses of the dashboard."""

from django.contrib.auth.views import LogoutView
from django.urls import path

from tenants.console import views

app_name = "console"

urlpatterns = [
    path("", views.dashboard, name="dashboard"),
    path("sign-in", views.SignInView.as_view(), name="sign-in"),
    path("sign-out", LogoutView.as_view(), name="sign-out"),
    path("invitations/<uidb64>/<token>", views.InvitationView.as_view(), name="invitation"),
]
