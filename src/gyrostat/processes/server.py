"""Entry point of the model server: `python -m gyrostat.processes.server --state DIR --worker w0 --fd N --settings JSON`."""

from __future__ import annotations

import argparse
import json
import socket
import sys
from pathlib import Path

from gyrostat.processes import handover


def main(argv: list[str] | None = None) -> int:
    """Serve until SIGTERM; 0 after an orderly end, 4 where it could not start."""
    parser = argparse.ArgumentParser(prog="gyrostat.processes.server", description=__doc__)
    parser.add_argument("--state", type=Path, required=True, help="The environment's state folder.")
    parser.add_argument("--worker", default="w0", help="Name of this process in logs and receipts.")
    door = parser.add_mutually_exclusive_group(required=True)
    door.add_argument("--fd", type=int, help="A listening socket that was inherited.")
    door.add_argument(
        "--port", type=int, help="A port to listen on; 0: any free one, which is printed."
    )
    parser.add_argument(
        "--settings", default="{}", help='{"server": {...}, "models": {"wine": {...}}} as JSON.'
    )
    arguments = parser.parse_args(argv)
    sock = None
    if arguments.fd is not None:
        sock = socket.socket(fileno=arguments.fd)
        handover.offer(arguments.state, arguments.worker, sock)
    # Only then what takes long to load: a next `up` may ask for the socket before we answer anybody.
    from gyrostat_runtime.errors import RuntimeFault

    from gyrostat.serving.server import serve
    from gyrostat.serving.settings import ServerSettings, ServingSettings

    try:
        value = json.loads(arguments.settings)
        settings = ServerSettings(**value.get("server", {}))
        models = {
            name: ServingSettings(**serving) for name, serving in value.get("models", {}).items()
        }
    except (ValueError, TypeError, AttributeError) as error:
        parser.error(f"--settings cannot be read: {error}")
    try:
        if sock is None:
            sock = socket.create_server((settings.host, arguments.port), backlog=1024)
            sys.stdout.write(f"http://{settings.host}:{sock.getsockname()[1]}\n")
            sys.stdout.flush()
        serve(arguments.state, sock=sock, worker=arguments.worker, settings=settings, models=models)
    except (OSError, RuntimeFault) as error:
        sys.stderr.write(f"error  the model server cannot start: {error}\n")
        return 4
    return 0


if __name__ == "__main__":
    sys.exit(main())
