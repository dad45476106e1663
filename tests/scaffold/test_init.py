import importlib
import random
import subprocess
import sys
from pathlib import Path

import pytest

from gyrostat import config, scaffold
from gyrostat.data import checks, frames, snapshots, tables
from gyrostat.data.infer import infer
from gyrostat.data.numerals import NumberFormat
from gyrostat.errors import GyrostatError
from gyrostat.scaffold.guess import fit_template
from gyrostat.training.pack import pack

TABLES = Path(__file__).parents[1] / "cases" / "tables"
WINE = Path(__file__).parents[2] / "src" / "gyrostat" / "demo" / "winequality-red.csv"


@pytest.fixture(scope="module")
def wine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("init") / "wine"
    told = scaffold.init(folder, WINE, "quality")
    assert told.facts["n_rows"] == 1599
    assert told.facts["task"] == "regression"
    return folder


def test_the_guides_layout_is_written_and_the_declaration_reads(wine: Path) -> None:
    names = {p.name for p in wine.iterdir()}
    assert {
        "config",
        "data",
        "src",
        "tests",
        "requirements.txt",
        "Dockerfile",
        ".gitignore",
    } <= names
    assert {p.name for p in (wine / "src").glob("*.py")} == {
        f"{n}.py"
        for n in ("__init__", "common", "features", "train", "evaluate", "predict", "serve")
    }
    model = config.load(wine, {}).declaration.models["wine"]
    limit = next(limit for limit in model.gates.limits if limit.metric == "rmse")
    assert 0.62 < limit.bound < 0.81  # between what the template reaches and what the mean gets
    assert config.load(wine, {"GYROSTAT_ENV": "prod"}).env == "prod"


@pytest.fixture
def visits(tmp_path: Path) -> Path:
    scaffold.init(tmp_path / "visits", TABLES / "visits.csv", "dose")
    return tmp_path / "visits"


@pytest.mark.parametrize("name", ["wine", "visits"])
def test_the_projects_own_tests_pass(request: pytest.FixtureRequest, name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"],
        cwd=request.getfixturevalue(name),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert "6 passed" in done.stdout


@pytest.mark.parametrize(
    ("table", "target", "task"),
    [
        ("korean-cp949.csv", "등급", "multiclass"), ("odd-names.csv", "판매량 (kg)", "regression"), ("booleans.csv", "Renewed", "binary"),
        ("types.parquet", "total", "regression"), ("missing-words.csv", "damage", "binary"), ("visits.csv", "dose", "regression"),
        ("dates.csv", "delay", "regression"), ("rare-class.csv", "kind", "multiclass"), ("decimal-comma.csv", "Preis", "regression"),
    ],
)  # fmt: skip
def test_the_written_declaration_reads_the_table_as_init_said(
    tmp_path: Path, table: str, target: str, task: str
) -> None:
    told = scaffold.init(tmp_path / "p", TABLES / table, target)
    assert told.facts["task"] == task
    assert "gyrostat up" in told.lines[-1]
    data = config.load(tmp_path / "p", {}).declaration.models["p"].data
    texts, found = snapshots.source_of(tmp_path / "p", data)
    sniffed = tables.sniff(TABLES / table).settings
    guessed = infer(tables.read(TABLES / table, sniffed), target)
    assert found.schema() == guessed.schema()
    assert told.facts["features"] == {g.name: g.kind for g in found.features}
    rules = checks.read(tmp_path / "p" / "config" / data.checks)
    usual = NumberFormat(data.source.decimal, data.source.thousands)
    assert checks.run(texts, rules, frozenset(data.personal), data.columns, usual)["broken"] == []
    record = snapshots.take(tmp_path / "p", tmp_path / "state", "p", data)
    assert record is not None
    assert record["n_heldout"] == told.facts["n_heldout"]


def test_rows_of_one_entity_are_kept_together_by_the_declaration(visits: Path) -> None:
    data = config.load(visits, {}).declaration.models["visits"].data
    assert (data.keys.entity, data.split.group) == ("animal_no", "animal_no")


def test_without_a_target_the_last_column_is_it(tmp_path: Path) -> None:
    told = scaffold.init(tmp_path / "p", TABLES / "two-columns.csv", None)
    assert told.facts["target"] == "minutes"


def test_names_that_yaml_takes_for_something_else_stay_texts(tmp_path: Path) -> None:
    rows = "".join(f"{n % 7},{n % 5},{n * 7 % 11},{n % 7 + n % 5}.5\n" for n in range(60))
    path = tmp_path / "no, yes: #1.csv"
    path.write_text("null,a: #\x85b,- x,on\n" + rows, encoding="utf-8")
    told = scaffold.init(tmp_path / "2024", path, "on")
    data = config.load(tmp_path / "2024", {}).declaration.models["2024"].data
    assert (told.facts["model"], data.target) == ("2024", "on")
    _, found = snapshots.source_of(tmp_path / "2024", data)
    assert [g.name for g in found.features] == ["null", "a: #\x85b", "- x"]


@pytest.mark.parametrize("table", ["two-columns.csv", "missing-words.csv", "rare-class.csv"])
def test_the_templates_model_is_the_one_that_was_judged_and_packs_as_onnx(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    import cloudpickle
    import numpy as np

    path = TABLES / table
    df = tables.read(path, tables.sniff(path).settings)
    found = infer(df, df.columns[-1])
    schema = found.schema()
    rows = frames.typed(df, found)
    rows = rows.filter(rows[found.target].is_not_null())
    frame = frames.features(rows, schema).assign(**{found.target: frames.target(rows, schema)})
    params = {"n_estimators": 10, "max_depth": 4, "random_state": 1}
    monkeypatch.syspath_prepend(Path(scaffold.__file__).with_name("project"))
    for name in [n for n in sys.modules if n == "src" or n.startswith("src.")]:
        monkeypatch.delitem(sys.modules, name)
    train = importlib.import_module("src.train").train
    model = train(frame, {**params, "target": found.target, "task": found.task.value})
    for name in [n for n in sys.modules if n == "src" or n.startswith("src.")]:
        monkeypatch.delitem(sys.modules, name)
    features = frame.drop(columns=[found.target])
    judged = fit_template(frame, schema, params)
    assert np.array_equal(model.predict(features), judged.predict(features))
    (tmp_path / "model.pkl").write_bytes(cloudpickle.dumps(model))
    packed = pack(
        tmp_path / "bundle", name="p", model=model, model_file=tmp_path / "model.pkl", schema=schema,
        features=features, heldout_features=features.head(20), made_at=1.0, training={"metrics": {}, "params": params, "code": {"digest": "c" * 64, "commit": "", "dirty": False}},
        snapshot={"id": "d3f9a1c0b1c2", "n_train": 300, "n_heldout": 20, "checks": {"n_rules": 1}},
    )  # fmt: skip
    assert packed.flavour == "onnx", packed.reason


def test_what_the_rows_cannot_show_is_said_and_the_limit_is_one_that_they_can_hold(
    tmp_path: Path,
) -> None:
    dice = random.Random(5)
    rows = "".join(f"{dice.random()},{dice.random()}\n" for _ in range(200))
    path = tmp_path / "noise.csv"
    path.write_text("x,y\n" + rows, encoding="utf-8")
    told = scaffold.init(tmp_path / "p", path, "y")
    assert any("do not show that a model beats" in line for line in told.lines)
    measured = told.facts["measured"]
    assert not measured["beats_trivial"]
    assert measured["upper"] < told.facts["limits"]["rmse"]["max"] < 2 * measured["upper"]


@pytest.mark.parametrize("name", ["p", "a/b/p"])
def test_an_interrupt_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def interrupted(*_: object) -> None:
        assert list(tmp_path.rglob("config.yaml"))  # in the middle of it
        raise KeyboardInterrupt

    monkeypatch.setattr(config, "load", interrupted)
    with pytest.raises(KeyboardInterrupt):
        scaffold.init(tmp_path / name, TABLES / "two-columns.csv", "minutes")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("table", "target", "named"),
    [
        ("one-value.csv", "status", ["active", "150"]), ("five-rows.csv", "y", ["5 rows", "20"]), ("header-only.csv", "y", ["4 columns", "no rows"]),
        ("no-header.csv", "5", ["5.2"]), ("stars.csv", "star", ["stars"]),
        ("there-is-none.csv", "y", ["no file"]),
    ],
)  # fmt: skip
def test_what_is_not_understood_stops_and_leaves_nothing(
    tmp_path: Path, table: str, target: str, named: list[str]
) -> None:
    with pytest.raises(GyrostatError) as caught:
        scaffold.init(tmp_path / "p", TABLES / table, target)
    for word in named:
        assert word in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(GyrostatError, match="not empty"):
        scaffold.init(tmp_path, WINE, "quality")
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_personal_values_are_never_said(tmp_path: Path) -> None:
    told = scaffold.init(tmp_path / "p", TABLES / "members.csv", "left")
    assert set(told.facts["personal"]) == {"mail", "phone", "rrn", "remark"}
    written = "".join(
        p.read_text(encoding="utf-8") for p in (tmp_path / "p" / "config").glob("*.yaml")
    )
    for text in (str(told), str(told.facts), written):
        assert "example.invalid" not in text
        assert "010-0000" not in text


def test_a_name_that_stands_twice_cannot_be_the_target(tmp_path: Path) -> None:
    with pytest.raises(GyrostatError, match="more than once"):
        scaffold.init(tmp_path / "p", TABLES / "duplicate-names.csv", "temp")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("table", "target", "column", "said"),
    [
        ("money.csv", "매출", "손익", "'(2,056)' is -2056"),
        ("codes.csv", "late", "branch", "leading zeros"),
        ("members.csv", "left", "phone", "300 rows hold what looks like phone numbers"),
        ("one-value.csv", "status", "status", "there is nothing to learn"),
    ],
)
def test_a_column_is_explained_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str, target: str, column: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    told = scaffold.explain(TABLES / table, target, column)
    assert said in str(told)
    assert told.facts["why"]
    assert "010-0000" not in str(told) + str(told.facts)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(GyrostatError, match="no column"):
        scaffold.explain(TABLES / table, target, "nobody")


def test_groups_that_cannot_be_split_are_not_taken_and_said(tmp_path: Path) -> None:
    dice = random.Random(2)
    # Nearly all rows belong to one group, so one side is left with next to nothing.
    rows = [f"{'g1' if n < 290 else f'g{n}'},{dice.random()},{dice.random()}" for n in range(300)]
    path = tmp_path / "t.csv"
    path.write_text("patient_id,x,y\n" + "\n".join(rows) + "\n", encoding="utf-8")
    told = scaffold.init(tmp_path / "p", path, "y")
    data = config.load(tmp_path / "p", {}).declaration.models["p"].data
    assert data.split.group == ""
    assert "not taken as split.group" in str(told)
    assert "patient_id" in data.exclude


def test_how_numbers_are_written_is_declared_and_the_next_file_is_read_alike(
    tmp_path: Path,
) -> None:
    told = scaffold.init(tmp_path / "p", TABLES / "money.csv", "매출")
    data = config.load(tmp_path / "p", {}).declaration.models["p"].data
    assert data.columns["단가"].format == "₩1,234.5"
    assert told.facts["features"]["손익"] == "integer"
    # A few rows that alone could be read otherwise.
    path = tmp_path / "p" / "data" / "money.csv"
    header, *rows = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([header, *rows[:40]]) + "\n", encoding="utf-8")
    df, found = snapshots.source_of(tmp_path / "p", data)
    assert {n: g.kind for n, g in found.columns.items()} == told.facts["features"] | {"매출": "integer"}  # fmt: skip
    assert frames.typed(df, found)["손익"][1] == -2056


def test_a_file_that_came_otherwise_is_named_with_the_difference(tmp_path: Path) -> None:
    scaffold.init(tmp_path / "p", TABLES / "two-columns.csv", "minutes")
    data = config.load(tmp_path / "p", {}).declaration.models["p"].data
    path = tmp_path / "p" / "data" / "two-columns.csv"
    path.write_text("# now with a title\n" + path.read_text().replace(",", ";"))
    with pytest.raises(GyrostatError) as caught:
        snapshots.source_of(tmp_path / "p", data)
    assert "data.source.separator: ',' -> ';'" in str(caught.value)
    assert "data.source.skip_lines: 0 -> 1" in str(caught.value)
