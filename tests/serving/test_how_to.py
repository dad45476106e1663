"""docs/how-to/serving.md: each command in it is run as it stands, and gets the same number."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from serving.alone import Alone, free_port, make_project
from serving.bench import until

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "serving.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
VARIABLES = {
    "GYROSTAT_TOKEN": "a-token-for-the-page",
    "AIP_PREDICT_ROUTE": "/v1/endpoints/1:predict",
}

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="the page uses curl")


def run(command: str, port: int) -> str:
    done = subprocess.run(
        ["bash", "-euc", command.replace("127.0.0.1:8080", f"127.0.0.1:{port}")],
        env={**os.environ, **VARIABLES},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return done.stdout


def test_every_command_of_the_page_gets_the_number_that_the_others_get(tmp_path):
    asks_with_token = [c for c in COMMANDS if "GYROSTAT_TOKEN" in c]
    assert (len(COMMANDS), len(asks_with_token)) == (8, 3)
    make_project(tmp_path)
    for commands, environ in (
        ([c for c in COMMANDS if c not in asks_with_token], {}),
        (asks_with_token, VARIABLES),
    ):
        server = Alone(tmp_path, "--port", free_port(), **environ)
        try:
            until(lambda server=server: server.ask("GET", "/ping")[0] == 200)
            for command in commands:
                wanted = (
                    "gyrostat_ready"
                    if "/metrics" in command
                    else '"data":[10.0]'
                    if "/v2/" in command
                    else '{"predictions":[10.0],'
                )
                assert wanted in run(command, server.port), command
        finally:
            server.close()
