"""Entry point of the control room: `python -m gyrostat.control --project DIR --fd N`, started by `gyrostat up`."""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys

import uvicorn

from gyrostat.control.app import Hub, build
from gyrostat.project import Project


class Server(uvicorn.Server):
    """Ends the open streams first: uvicorn waits for them without end."""

    hub: Hub

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        self.hub.is_over = True
        await self.hub.wake()
        await super().shutdown(sockets)


def main(arguments: list[str] | None = None) -> int:
    """Serve the page until SIGTERM."""
    parser = argparse.ArgumentParser(prog="gyrostat.control", description=__doc__)
    parser.add_argument("--project", required=True)
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--actor", default="somebody")
    asked = parser.parse_args(arguments)
    sock = socket.socket(fileno=asked.fd)
    app, hub = build(Project(asked.project), port=sock.getsockname()[1], actor=asked.actor)
    settings = uvicorn.Config(
        app, log_level="warning", access_log=False, timeout_graceful_shutdown=3
    )  # type: ignore[arg-type]
    server = Server(settings)
    server.hub = hub
    asyncio.run(server.serve(sockets=[sock]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
