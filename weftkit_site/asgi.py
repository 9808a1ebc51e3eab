"""What daphne serves: `daphne weftkit_site.asgi:application`. HTTP, and the dashboard's websockets.

A websocket is taken from pages of our own hosts only (their Origin), with the session's cookie.
"""

from __future__ import annotations

import os
from typing import Any

from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "weftkit_site.settings.local")


def _application() -> Any:
    http = get_asgi_application()
    # Models can be imported from here on.
    from channels.auth import AuthMiddlewareStack
    from channels.security.websocket import AllowedHostsOriginValidator
    from django.urls import path

    from tenants.console.live import LiveConsumer

    sockets = URLRouter([path("t/<str:tenant>/live", LiveConsumer.as_asgi())])
    websocket = AllowedHostsOriginValidator(AuthMiddlewareStack(sockets))
    return ProtocolTypeRouter({"http": http, "websocket": websocket})


application = _application()
