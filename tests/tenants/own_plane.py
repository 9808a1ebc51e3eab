"""A data plane that follows the control plane's own database, that of the tests."""

from __future__ import annotations

from django.db import connection

from engines.kit import exchange
from tests.dataplane.plane import ControlDatabase
from tests.servers import PostgresServer


class DjangoDatabase(ControlDatabase):
    """The control plane's own database, as a data plane reaches it."""

    def __init__(self, postgres: PostgresServer) -> None:
        self.postgres = postgres
        self.name = str(connection.settings_dict["NAME"])
        self.dsn = postgres.dsn(self.name)
        self.dataplane_dsn = postgres.dsn(self.name, exchange.DATAPLANE_ROLE)
