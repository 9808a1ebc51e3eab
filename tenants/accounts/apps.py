"""The app `accounts`: tenants, members, sign-in."""

from django.apps import AppConfig


class AccountsConfig(AppConfig):
    name = "tenants.accounts"
