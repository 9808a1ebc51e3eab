"""What daphne serves: `daphne weftkit_site.asgi:application`.

HTTP only for now; the dashboard's live progress (websockets over Channels) joins the table below.
"""

import os

from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "weftkit_site.settings.local")

application = ProtocolTypeRouter({"http": get_asgi_application()})
