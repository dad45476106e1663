import subprocess
import sys
from pathlib import Path

import pytest

from gyrostat import config, scaffold
from gyrostat.errors import GyrostatError

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


def test_the_projects_own_tests_pass(wine: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"],
        cwd=wine,
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
    ],
)  # fmt: skip
def test_many_kinds_of_tables_become_projects(
    tmp_path: Path, table: str, target: str, task: str
) -> None:
    told = scaffold.init(tmp_path / "p", TABLES / table, target)
    assert told.facts["task"] == task
    assert config.load(tmp_path / "p", {}).declaration.models["p"].data.target == target
    assert "gyrostat up" in told.lines[-1]


@pytest.mark.parametrize(
    ("table", "target", "named"),
    [
        ("one-value.csv", "status", ["active", "150"]), ("five-rows.csv", "y", ["5 rows", "20"]), ("header-only.csv", "y", ["4 columns", "no rows"]),
        ("no-header.csv", "5", ["5.2"]), ("infinite.csv", "power", ["ratio", "36", "scale", "67"]), ("stars.csv", "star", ["stars"]),
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
