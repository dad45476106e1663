"""Another release is installed under a running `up`: everything ends and begins again as that one, and nobody is turned away."""

import contextlib
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from gyrostat.processes import handover, runfiles

from .conftest import GYROSTAT, free_port, table, wait
from .test_whole import Asking, Whole


def install(site: Path, version: str) -> None:
    """What an installer leaves behind, as Python finds it."""
    folder = site / "gyrostat-0.dist-info"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: gyrostat\nVersion: {version}\n")


@pytest.mark.slow
def test_an_upgrade_ends_every_process_of_the_old_release_and_loses_no_request(
    tmp_path: Path,
) -> None:
    install(tmp_path / "site", "1.0.0")
    path = os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")])
    environ = os.environ | {"PYTHONPATH": path}
    table(tmp_path / "homes.csv")
    homes = tmp_path / "homes"
    subprocess.run(
        [*GYROSTAT, "init", str(homes), "--data", str(tmp_path / "homes.csv"), "--target", "price"],
        check=True, timeout=240,
    )  # fmt: skip
    whole = Whole(homes, free_port(), free_port())
    (homes / "config" / "dev.yaml").write_text(
        f"models: {{homes: {{rollout: {{approval: never}}, limits: {{latency_p99: {{max: 2s}}}}}}}}\n"
        f"server: {{port: {whole.port}}}\ncontrol_room: {{port: {whole.control_port}}}\n"
    )
    with (tmp_path / "up.log").open("wb") as log:
        up = subprocess.Popen(
            [*GYROSTAT, "up"], cwd=homes, stdout=log, stderr=log, env=environ, start_new_session=True
        )  # fmt: skip
    try:
        wait("a champion", lambda: (whole.picture()["champion"] or {}).get("applied"))
        old = {name: run.pid for name, run in runfiles.alive(whole.project.state).items()}
        with Asking(whole) as asking:
            install(tmp_path / "site", "1.1.0")
            wait(
                "new processes",
                lambda: (
                    (now := runfiles.alive(whole.project.state)).keys() >= old.keys()
                    and all(now[name].pid != pid for name, pid in old.items() if name != "up")
                ),
            )
            n = asking.n
            wait("requests after it", lambda: asking.n > n + 20)
        assert asking.failed == []
        assert runfiles.alive(whole.project.state)["up"].pid == up.pid
        said = (tmp_path / "up.log").read_text()
        assert "gyrostat 1.1.0 was installed: everything ended, and begins again" in said
        assert "was ended by signal" not in said
    finally:
        os.kill(up.pid, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            up.wait(30)


def test_only_a_socket_that_listens_where_it_says_is_taken_over_and_only_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mine:
        port = mine.getsockname()[1]
        numbers = [os.dup(mine.fileno()) for _ in range(2)]
        monkeypatch.setenv(
            handover.SOCKETS, f"{port}={numbers[0]},{port + 1}={numbers[1]},junk,9=x,8=99999"
        )
        found = handover.inherited()
        assert list(found) == [port]
        assert handover.inherited() == {}
        found[port].close()
        os.close(numbers[1])
