"""Two models in one project behind two server workers; the second is declared while everything runs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import Whole, running, wait

BOTH = """\
version: 1
models:
  homes: {homes}
{other}\
server: {{port: {port}, workers: {workers}}}
control_room: {{port: {control_port}}}
"""
HOMES = (
    "{data: {source: data/homes.csv, target: price}, limits: {rmse: {max: 400}}, "
    "rollout: {approval: never}, retraining: {triggers: []}}"
)
OTHER = (
    "  dry: {data: {source: data/homes.csv, target: price, exclude: [humidity]}, limits: {rmse: {max: 400}}, "
    "rollout: {approval: never}, retraining: {triggers: []}}\n"
)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Whole]:
    with running(tmp_path, lambda found: declare(found, other="", workers=1)) as found:
        yield found


def declare(project: Whole, *, other: str, workers: int) -> None:
    text = BOTH.format(
        homes=HOMES,
        other=other,
        workers=workers,
        port=project.port,
        control_port=project.control_port,
    )
    (project.root / "config" / "config.yaml").write_text(text)


def champion(project: Whole, model: str) -> dict:
    models = project.project.status().facts["models"]
    return (models.get(model) or {}).get("champion") or {}


@pytest.mark.slow
def test_a_model_declared_while_all_runs_is_made_served_and_watched_beside_the_first(
    project: Whole,
) -> None:
    row = {"rooms": 3, "humidity": 0.4, "city": "seoul"}
    wait("homes", lambda: champion(project, "homes").get("applied"))
    assert project.ask(row)[0] == 200

    declare(project, other=OTHER, workers=2)
    wait("dry", lambda: champion(project, "dry").get("applied"))
    processes = project.project.processes()
    assert {"server-0", "server-1"} <= processes.keys()
    status, _ = project.ask(row)
    assert status == 404  # with two models a request names the one it means
    status, answer = project.ask(row, model="homes")
    assert (status, answer["version"]) == (200, 1)
    status, answer = project.ask({"rooms": 3, "city": "seoul"}, model="dry")
    assert status == 200
    assert 100 < answer["predictions"][0] < 800
    wait(
        "its predictions to be counted",
        lambda: (project.root / ".gyrostat/dev/observations/dry/live.json").exists(),
    )

    project.command("hold", "dry", "--reason", "a test")
    wait("the hold", lambda: project.project.status().facts["models"]["dry"]["held"])
    models = project.project.status().facts["models"]
    assert models["homes"]["held"] is None
