"""The border of every HTTP engine: a thin layer over raw ASGI, with no framework below it.

Read in this order: `routing` (path templates to handlers), `request` (what came, bodies with their
limits), `response` (what goes), `application` (the ASGI callable that joins them). An engine makes
a `Router`, registers `async def handler(request) -> Response`, and declares `Application(router,
on_error)`; deadlines, listeners and TLS are the host's.
"""

from engines.kit.http.application import Application as Application
from engines.kit.http.request import ClientGoneError as ClientGoneError
from engines.kit.http.request import Request as Request
from engines.kit.http.response import Response as Response
from engines.kit.http.routing import MethodNotAllowedError as MethodNotAllowedError
from engines.kit.http.routing import Router as Router
