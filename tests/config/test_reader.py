"""Files and variables become one typed declaration, and each value says where it came from."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from config.builders import DECLARATION, Read

from gyrostat import config
from gyrostat.data.settings import Span, SplitSettings
from gyrostat.errors import ConfigError, UsageError
from gyrostat.terms import Limit, Margin

RMSE_MAX = "GYROSTAT_MODELS__WINE__LIMITS__RMSE__MAX"


def test_units_become_seconds_bytes_and_shares(read: Read):
    declaration = read().declaration
    wine = declaration.models["wine"]
    assert wine.train.resources.time_s == 600
    assert wine.train.resources.memory_bytes == 2_000_000_000
    assert wine.data.split.holdout == 0.2
    assert wine.gates.limits == (
        Limit("rmse", max=0.7), Limit("error_rate", max=0.01), Limit("latency_p99", max=0.05),
    )  # fmt: skip
    assert wine.gates.size_bytes == 200_000_000
    assert wine.gates.undecided.after_s == 7 * 86400
    assert wine.rollout.steps == (0.0, 0.05, 0.25, 0.5)
    assert wine.rollout.guardrails == {
        "error_rate": Margin("points", 0.01),
        "latency_p99": Margin("ratio", 1.2),
        "rmse": Margin("ratio", 1.05),
    }
    assert wine.monitoring.drift.false_alarms_per_s == 1 / (30 * 86400)
    assert (wine.retraining.budget, wine.retraining.budget_window_s) == (4, 86400)
    assert (declaration.server.port, declaration.control_port) == (8080, 7007)


def test_a_split_by_time_and_a_window_are_spans_of_the_calendar(read: Read):
    text = DECLARATION.replace("keys: {}", "keys: {event_at: month}").replace(
        "split: {holdout: 20%}",
        "split: {by: event_at, holdout: 3 months, gap: 60d}\n      window: 2 years",
    )
    loaded = read(text=text)
    data = loaded.declaration.models["wine"].data
    assert data.split == SplitSettings(Span(3, "mo"), by="month", gap=Span(60, "d"))
    assert data.window == Span(2, "y")
    assert [str(s) for s in (data.split.holdout, data.split.gap, data.window)] == ["3 months", "60 days", "2 years"]  # fmt: skip


def test_a_window_of_time_needs_a_time(read: Read):
    with pytest.raises(ConfigError, match=r"window of 12 weeks needs the column that says when"):
        read("      exclude: []", "      window: 12 weeks\n      exclude: []")


def test_yaml_is_1_2_so_on_and_no_are_texts(read: Read):
    assert read("target: quality", "target: no").declaration.models["wine"].data.target == "no"
    with pytest.raises(ConfigError, match=r"'on' is not allowed here\. Allowed: true or false"):
        read("learn_from_traffic: true", "learn_from_traffic: on")


@pytest.mark.parametrize(("short", "whole"), [
    ("source: data/winequality-red.csv", "source: {path: data/winequality-red.csv}"),
    ("size: {max: 200MB}", "size: 200MB"),
    ("{max: 50ms}", "{max: 0.05s}"),
])  # fmt: skip
def test_a_value_in_short_is_the_same_declaration(read: Read, short: str, whole: str):
    assert read().declaration == read(short, whole).declaration


def test_what_is_not_written_has_its_default_and_says_so(read: Read):
    loaded = read(text="version: 1\nmodels: {m: {data: {source: a.csv, target: y}}}\n")
    assert loaded.declaration.models["m"].rollout.approval == "first"
    assert loaded.values["models"]["m"]["rollout"]["approval"] == "first"
    assert loaded.origins["models.m.rollout.approval"] == "default"


@pytest.mark.parametrize(("task", "metric"), [("regression", "rmse"), ("binary", "accuracy")])
def test_the_champion_is_compared_by_what_the_task_has(read: Read, task: str, metric: str):
    text = f"version: 1\nmodels: {{m: {{data: {{source: a.csv, target: y, task: {task}}}}}}}\n"
    assert read(text=text).declaration.models["m"].gates.champion.metric == metric


def test_an_environment_lies_over_the_file_and_variables_over_both(read: Read):
    files = {
        "prod.yaml": "server: {port: 9000}\nmodels:\n  wine:\n    limits: {rmse: {max: 0.6}}\n"
    }
    loaded = read(files=files, GYROSTAT_ENV="prod", **{RMSE_MAX: "0.55"})
    wine = loaded.declaration.models["wine"]
    assert loaded.declaration.server.port == 9000
    assert wine.gates.limits[0] == Limit("rmse", max=0.55)
    assert wine.gates.limits[1] == Limit(
        "error_rate", max=0.01
    )  # what the overlay does not name stays
    assert loaded.origins["server.port"] == "config/prod.yaml:1"
    assert loaded.origins["models.wine.limits.rmse.max"] == RMSE_MAX
    assert loaded.origins["models.wine.limits.error_rate.max"] == "config/config.yaml:21"
    assert loaded.state == loaded.project / ".gyrostat" / "prod"


def test_an_environment_adds_to_what_is_written_in_short(read: Read):
    over = "models: {wine: {data: {source: {encoding: cp949}}}}"
    source = read(files={"dev.yaml": over}).declaration.models["wine"].data.source
    assert (source.path, source.encoding) == ("data/winequality-red.csv", "cp949")


def test_dev_needs_no_file_and_any_other_environment_does(read: Read):
    assert read().env == "dev"
    files = {"prod.yaml": "", "checks.yaml": ""}
    with pytest.raises(ConfigError) as told:
        read(files=files, GYROSTAT_ENV="prd")
    assert 'Did you mean "prod"? Found in config/: prod.yaml.' in str(told.value)


@pytest.mark.parametrize("env", ["../prod", "config", "checks", "a/b", ".."])
def test_an_environment_is_a_name_and_never_a_path(read: Read, env: str):
    with pytest.raises(ConfigError, match="is no name of an environment"):
        read(files={"checks.yaml": "", "prod.yaml": ""}, GYROSTAT_ENV=env)


def test_an_environment_adds_no_model(read: Read):
    with pytest.raises(ConfigError, match=r'prod.yaml:2  models.whine: .* Did you mean "wine"\?'):
        read(files={"prod.yaml": "models:\n  whine: {}\n"}, GYROSTAT_ENV="prod")


@pytest.mark.parametrize("variable", [
    "GYROSTAT_MODELS__MY_MODEL__DATA__TARGET", "GYROSTAT_MODELS__my_model__DATA__TARGET", "GYROSTAT_MODELS__My-Model__DATA__TARGET",
])  # fmt: skip
def test_a_model_is_found_in_any_case_and_without_its_dash(read: Read, variable: str):
    text = "version: 1\nmodels: {My-Model: {data: {source: a.csv, target: y}}}\n"
    assert read(text=text, **{variable: "z"}).declaration.models["My-Model"].data.target == "z"


def test_a_name_that_two_models_could_have_is_refused(read: Read):
    model = "{data: {source: a.csv, target: y}}"
    text = f"version: 1\nmodels: {{a-b: {model}, A_b: {model}}}\n"
    with pytest.raises(ConfigError, match="there is no setting"):
        read(text=text, GYROSTAT_MODELS__a_B__DATA__TARGET="z")


def test_variables_reach_parameters_and_metrics_that_no_file_names(read: Read):
    loaded = read(
        GYROSTAT_MODELS__WINE__TRAIN__PARAMS__MAX_DEPTH="9",
        GYROSTAT_MODELS__WINE__LIMITS__MAE__MAX="0.5",
        GYROSTAT_MODELS__WINE__ROLLOUT__STEPS="[shadow, 10%]",
    )
    wine = loaded.declaration.models["wine"]
    assert wine.train.params == {"n_estimators": 100, "max_depth": 9, "random_state": 42}
    assert Limit("mae", max=0.5) in wine.gates.limits
    assert wine.rollout.steps == (0.0, 0.1)


@pytest.mark.parametrize("variable", [
    "GYROSTAT_GOVERNANCE__APPROVERS", "GYROSTAT_GOVERNANCE", "GYROSTAT_MODELS__WINE__ROLLOUT__APPROVAL",
    "GYROSTAT_MODELS__WINE__ROLLOUT", "GYROSTAT_MODELS__WINE", "GYROSTAT_MODELS", "GYROSTAT_models__wine__Rollout__Approval",
])  # fmt: skip
def test_who_decides_is_never_set_by_a_variable(read: Read, variable: str):
    with pytest.raises(
        ConfigError, match=r"never set by an environment variable|holds keys; name one"
    ):
        read(**{variable: "{approval: never, approvers: [eve], rollout: {approval: never}}"})


@pytest.mark.parametrize(("variable", "hint"), [
    ("GYROSTAT_PORT", "GYROSTAT_SERVER__PORT"),
    ("GYROSTAT_SERVER__PROT", "port"),
    ("GYROSTAT_DEBGU", "GYROSTAT_DEBUG"),
    ("GYROSTAT_MODELS__WHINE__LIMITS__RMSE__MAX", "wine"),
])  # fmt: skip
def test_an_unknown_variable_is_an_error_with_the_nearest_known(
    read: Read, variable: str, hint: str
):
    with pytest.raises(ConfigError, match=f'^{variable}: .*Did you mean "{hint}"'):
        read(**{variable: "1"})


def test_variables_of_ours_that_are_no_settings_and_those_of_others_are_left_alone(read: Read):
    environ = {
        "GYROSTAT_DEBUG": "1",
        "GYROSTAT_REQUIRE_SERVERS": "1",
        "GYROSTAT_TOKEN": "a-secret-of-the-server",
        "GYROSTAT_HOST": "0.0.0.0",
        "PATH": "/bin",
        "NOGYROSTAT_X": "1",
    }
    assert read(**environ).digest == read().digest


@pytest.mark.parametrize(
    ("value", "said"),
    [("[1", "This is no YAML"), ("", "no value stands here"), ("99999", "1 to 65535")],
)
def test_a_wrong_value_in_a_variable_names_the_variable(read: Read, value: str, said: str):
    with pytest.raises(ConfigError) as told:
        read(GYROSTAT_SERVER__PORT=value)
    assert str(told.value).startswith("GYROSTAT_SERVER__PORT")
    assert said in str(told.value)


def test_the_digest_is_of_the_values_not_of_how_they_are_laid_out(read: Read):
    digest = read().digest
    assert read(text=DECLARATION.replace("\n", "\r\n")).digest == digest
    assert read(text=b"\xef\xbb\xbf" + DECLARATION.encode()).digest == digest
    assert read(text=DECLARATION + "# a comment\n").digest == digest
    assert read("max_depth: 6", "max_depth: 7").digest != digest
    assert read(**{RMSE_MAX: "0.6"}).digest == read("rmse: {max: 0.70}", "rmse: {max: 0.6}").digest


def test_each_origin_belongs_to_a_value_that_is_there(read: Read):
    over = "models: {wine: {limits: null}}"
    loaded = read(files={"dev.yaml": over}, GYROSTAT_MODELS__WINE__TRAIN__PARAMS__DEPTH="1")
    assert not loaded.declaration.models["wine"].gates.limits
    assert not [path for path in loaded.origins if path.startswith("models.wine.limits.")]
    assert loaded.origins["models.wine.train.params.depth"].startswith("GYROSTAT_")


def test_the_project_is_found_from_any_folder_below_it(read: Read, tmp_path: Path):
    read()
    deep = tmp_path / "data" / "raw"
    deep.mkdir(parents=True)
    assert config.project_root(deep) == tmp_path.resolve()


def test_outside_of_a_project_it_says_how_to_make_one(tmp_path: Path):
    with pytest.raises(UsageError, match="gyrostat init DIR --data FILE"):
        config.project_root(tmp_path)
    with pytest.raises(UsageError, match=r"There is no config/config.yaml"):
        config.load(tmp_path, {})


def test_reading_loads_no_library_of_numbers(tmp_path: Path, read: Read):
    # `gyrostat status` reads the declaration: what it loads, every call waits for.
    read()
    code = (
        "import sys; from pathlib import Path; from gyrostat import config; config.load(Path(sys.argv[1]), {});"
        "heavy = {'numpy', 'scipy', 'pandas', 'polars', 'sklearn', 'onnx', 'onnxruntime', 'mlflow', 'cryptography'};"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_batches_are_read_in_their_order_and_replayed_where_there_are_no_steps(read: Read):
    batch = """\
    batch:
      b: {input: in.csv, output: "out/{date}.csv", schedule: {cron: "0 6 * * *", zone: Asia/Seoul}, keep: [id]}
      a: {input: x.parquet, output: y.parquet, schedule: {cron: "5 * * * *"}}
"""
    text = DECLARATION.replace("    gates:", f"{batch}    gates:")
    wine = read(text=text).declaration.models["wine"]
    assert [(b.name, str(b.schedule), b.keep, b.is_replayed) for b in wine.batches] == [
        ("b", "0 6 * * * Asia/Seoul", ("id",), False), ("a", "5 * * * * UTC", (), False),
    ]  # fmt: skip
    # 23:00 in London is the next day in Seoul.
    assert wine.batches[0].dated(wine.batches[0].output, 23 * 3600.0) == "out/1970-01-02.csv"
    wine = read(text=text.replace("[shadow, 5%, 25%, 50%]", "[]")).declaration.models["wine"]
    assert wine.rollout.steps == ()
    assert all(b.is_replayed for b in wine.batches)
