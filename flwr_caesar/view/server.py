"""The page of a run: static files, and the run folder as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

Source = Callable[[str, str], Mapping[str, Any] | None]
_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
# Nothing that a file of a run says may load or run anything.
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_HOSTS = ["127.0.0.1", "localhost"]


def application(source: Source) -> Starlette:
    """Return the page's server.

    Parameters
    ----------
    source : callable
        Given the name of a run, empty for the first, and the stamp that the page has;
        returns what to show, None if that is what the page has already.
    """

    def data(request: Request) -> Response:
        run = request.query_params.get("run", "")
        told = source(run, request.query_params.get("known", ""))
        if told is None:
            return Response(status_code=204, headers=_HEADERS)
        # "<" is not needed in JSON; a browser must not take it for anything.
        body = json.dumps(told, allow_nan=False).replace("<", "\\u003c")
        return Response(body, media_type="application/json", headers=_HEADERS)

    routes = [Route("/data", data, methods=["GET"])]
    for path, name in (
        ("/", "page.html"),
        ("/page.css", "page.css"),
        ("/page.js", "page.js"),
        ("/chart.js", "chart.js"),
    ):
        routes.append(Route(path, _static(name), methods=["GET"]))
    # A page elsewhere could give its own host name our address.
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=_HOSTS)
    return Starlette(routes=routes, middleware=[hosts])


def _static(name: str) -> Callable[[Request], Response]:
    body = files("flwr_caesar.view").joinpath("page", name).read_bytes()
    kind = _TYPES[name.rpartition(".")[2]]

    def serve(request: Request) -> Response:
        return Response(body, media_type=kind, headers=_HEADERS)

    return serve
