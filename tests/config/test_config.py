import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gyrostat import config
from gyrostat.errors import ConfigError, NotYetError, UsageError
from gyrostat.terms import Limit, Margin

BASE = """\
version: 1
models:
  wine:
    data:
      source: data/wine.csv
      target: quality
    limits:
      rmse: {max: 0.70}
      error_rate: {max: 1%}
      latency_p99: {max: 50ms}
    rollout:
      steps: [shadow, 5%, 25%]
      guardrails: {error_rate: +1pp, latency_p99: x1.2}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.yaml").write_text(BASE)
    return tmp_path


def said(project: Path, text: str, environ: dict[str, str] | None = None) -> str:
    (project / "config" / "config.yaml").write_text(text)
    with pytest.raises((ConfigError, NotYetError)) as caught:
        config.load(project, environ or {})
    return str(caught.value)


def test_units_become_numbers(project: Path) -> None:
    wine = config.load(project, {}).declaration.models["wine"]
    assert wine.gates.limits == (
        Limit("rmse", max=0.7),
        Limit("error_rate", max=0.01),
        Limit("latency_p99", max=0.05),
    )
    assert wine.rollout.steps == (0.0, 0.05, 0.25)
    assert wine.rollout.guardrails == {
        "error_rate": Margin("points", 0.01),
        "latency_p99": Margin("ratio", 1.2),
    }
    assert (wine.retraining.budget, wine.retraining.budget_window_s, wine.monitoring.keep_s) == (
        4,
        86400.0,
        90 * 86400.0,
    )


@pytest.mark.parametrize(
    ("change", "place", "words"),
    [
        (
            ("guardrails:", "guardrail:"),
            "config/config.yaml:13",
            ['Did you mean "guardrails"?', "Keys here: approval, bake", "Nothing was changed"],
        ),
        (
            ("1%", "150%x"),
            "config/config.yaml:9",
            ["models.wine.limits.error_rate.max", "'150%x'", "a share (1%)"],
        ),
        (
            ("target: quality", "tagret: quality"),
            "config/config.yaml:6",
            ['Did you mean "target"?'],
        ),
        (("      target: quality\n", ""), "models.wine.data.target", ["it is missing"]),
        (("{max: 0.70}", "{max: 0.7, min: 0.1}"), "config/config.yaml:8", ["exactly one side"]),
        (("version: 1", "version: 2"), "config/config.yaml:1", ["Allowed: 1"]),
        (("[shadow, 5%, 25%]", "[25%, 5%]"), "config/config.yaml:12", ["growing shares"]),
        (("[shadow, 5%, 25%]", "[]"), "config/config.yaml:12", ["none is declared"]),
        (("x1.2}", "x0.9}"), "guardrails.latency_p99", ["at least +0 or x1"]),
        (("  wine:", "  w/ne:"), "models.w/ne", ["letters, digits, _ and -"]),
    ],
)
def test_a_mistake_says_where_what_and_what_is_allowed(
    project: Path, change: tuple[str, str], place: str, words: list[str]
) -> None:
    message = said(project, BASE.replace(*change))
    for word in (place, *words):
        assert word in message, message


def test_malformed_yaml_names_line_and_column(project: Path) -> None:
    assert re.match(r"config/config\.yaml:1[45]:\d+  ", said(project, BASE + "  x: [1\n"))


def test_a_key_that_stands_twice_is_refused(project: Path) -> None:
    assert "config/config.yaml" in said(project, BASE + "version: 1\n")


def test_on_and_no_are_text(project: Path) -> None:
    (project / "config" / "config.yaml").write_text(BASE.replace("target: quality", "target: no"))
    assert config.load(project, {}).declaration.models["wine"].data.target == "no"


def test_environments_overlay_and_say_where_a_value_came_from(project: Path) -> None:
    (project / "config" / "prod.yaml").write_text(
        "server: {port: 9000}\nmodels: {wine: {limits: {rmse: {max: 0.5}}}}\n"
    )
    loaded = config.load(
        project, {"GYROSTAT_ENV": "prod", "GYROSTAT_MODELS__WINE__LIMITS__RMSE__MAX": "0.4"}
    )
    assert loaded.declaration.server.port == 9000
    assert loaded.declaration.models["wine"].gates.limits[0].max == 0.4
    assert loaded.origins["server.port"] == "config/prod.yaml:1"
    assert (
        loaded.origins["models.wine.limits.rmse.max"] == "GYROSTAT_MODELS__WINE__LIMITS__RMSE__MAX"
    )
    assert loaded.state.name == "prod"


@pytest.mark.parametrize(
    "name", ["GYROSTAT_MODELS__WINE__ROLLOUT__APPROVAL", "GYROSTAT_GOVERNANCE__APPROVERS"]
)
def test_who_decides_is_never_set_by_a_variable(project: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="never set by an environment variable"):
        config.load(project, {name: "never"})


def test_a_variable_sets_one_value_so_nothing_slips_past(project: Path) -> None:
    with pytest.raises(ConfigError, match="holds keys; name one of them"):
        config.load(project, {"GYROSTAT_MODELS__WINE__ROLLOUT": "{approval: never}"})


def test_a_size_may_be_written_as_a_limit(project: Path) -> None:
    (project / "config" / "dev.yaml").write_text("models: {wine: {gates: {size: {max: 200MB}}}}")
    assert config.load(project, {}).declaration.models["wine"].gates.size_bytes == 200_000_000


def test_an_unknown_variable_and_an_unknown_environment_are_told(project: Path) -> None:
    with pytest.raises(ConfigError, match='Did you mean "port"'):
        config.load(project, {"GYROSTAT_SERVER__PROT": "1"})
    with pytest.raises(ConfigError, match=r"config/staging\.yaml"):
        config.load(project, {"GYROSTAT_ENV": "staging"})


def test_a_looser_limit_is_found_and_a_stricter_one_is_not(project: Path) -> None:
    old = config.load(project, {})
    (project / "config" / "dev.yaml").write_text(
        "models: {wine: {limits: {rmse: {max: 0.9}}, rollout: {approval: never}}}"
    )
    new = config.load(project, {})
    found = config.loosened(old.declaration.models["wine"], new.declaration.models["wine"])
    assert found == ["limit rmse went from 0.7 to 0.9", "approval went from first to never"]
    assert config.loosened(new.declaration.models["wine"], old.declaration.models["wine"]) == []
    keys = {d["key"] for d in config.diff(old.values, new.values)}
    assert keys == {"models.wine.limits.rmse.max", "models.wine.rollout.approval"}


def test_a_kept_declaration_reads_back(project: Path) -> None:
    loaded = config.load(project, {})
    config.store(loaded)
    assert config.stored(loaded.state, loaded.digest) == loaded.declaration


def test_the_schema_is_json_and_knows_every_key_of_the_file(project: Path) -> None:
    schema: dict[str, Any] = json.loads(json.dumps(config.json_schema()))
    model = schema["properties"]["models"]["additionalProperties"]
    assert {
        "data",
        "train",
        "limits",
        "gates",
        "rollout",
        "monitoring",
        "retraining",
        "serving",
    } <= set(model["properties"])
    assert model["properties"]["rollout"]["properties"]["approval"]["enum"] == [
        "first",
        "always",
        "never",
    ]


def test_outside_a_project_the_command_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="gyrostat init"):
        config.project_root(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "gyrostat.cli.main", "status"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error  No project here")
