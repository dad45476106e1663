"""What Vertex AI tells a serving container: a port, and the routes of health and predictions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from gyrostat.errors import UsageError

_ROUTE = re.compile(r"/[A-Za-z0-9._~:/-]{0,500}")


@dataclass(frozen=True, slots=True)
class Vertex:
    """The `AIP_*` variables that are set; what is not is empty."""

    port: int | None = None
    health_route: str = ""
    predict_route: str = ""

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Vertex:
        """Read `AIP_HTTP_PORT`, `AIP_HEALTH_ROUTE` and `AIP_PREDICT_ROUTE`.

        Raises:
            UsageError: one of them says something that cannot be meant.
        """
        port = environ.get("AIP_HTTP_PORT", "")
        if port and not (port.isascii() and port.isdigit() and 1 <= int(port[:6]) <= 65535):
            raise UsageError(
                f"AIP_HTTP_PORT is {port[:20]!r}; a port is 1 to 65535. Nothing was started."
            )
        routes = [environ.get(f"AIP_{name}_ROUTE", "") for name in ("HEALTH", "PREDICT")]
        for name, route in zip(("HEALTH", "PREDICT"), routes, strict=True):
            if route and not _ROUTE.fullmatch(route):
                raise UsageError(
                    f"AIP_{name}_ROUTE is {route[:80]!r}; a route is a path such as /predict. Nothing was started."
                )
        if routes[0] and routes[0] == routes[1]:
            raise UsageError(
                "AIP_HEALTH_ROUTE and AIP_PREDICT_ROUTE must be two routes. Nothing was started."
            )
        return cls(int(port) if port else None, *routes)
