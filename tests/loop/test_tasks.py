"""The work of one run on a small project on disk, as the loop has it done: by real processes, each from its spec."""

import csv
import hashlib
import importlib
import json
import random
import time
from pathlib import Path

import pytest
from gyrostat_runtime import keys
from gyrostat_runtime.rows import from_columns
from gyrostat_runtime.session import Session

from gyrostat import config
from gyrostat.batch import parts
from gyrostat.data import snapshots
from gyrostat.errors import GyrostatError
from gyrostat.gates.judge import conclude, judge
from gyrostat.loop import tasks
from gyrostat.loop.assemble import Declarations, LocalWorld
from gyrostat.registry import bundles
from gyrostat.terms import Answer
from gyrostat.training import offer

DEADLINE_S = 240.0
RUN = "run/homes/1"
CONFIG = """\
version: 1
models:
  homes:
    data: {source: "data/homes.csv", target: price, split: {holdout: 30%}, checks: checks.yaml}
    train: {run: "src.train:train", params: {fit_intercept: true}}
    limits: {rmse: {max: 40}, latency_p99: {max: 5s}}
    gates: {champion: {metric: rmse, margin: 5}}
    batch: {nightly: {input: "in/{date}.csv", output: "out/{date}.csv", schedule: {cron: "0 6 * * *"}, keep: [city]}}
"""
CHECKS = "columns: {rooms: {range: [1, 9]}}\n"
TRAIN = """\
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder


def train(frame, params):
    price = frame.pop(params["target"])
    texts = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    columns = make_column_transformer((texts, ["city"]), remainder="passthrough")
    return make_pipeline(columns, LinearRegression(fit_intercept=params["fit_intercept"])).fit(frame, price)
"""
PRICES = {"seoul": 300, "busan": 120, "daegu": 60}


def table(n: int = 60, *, rooms: int | None = None) -> str:
    dice, lines = random.Random(8), ["rooms,humidity,city,price"]
    for _ in range(n):
        r, humidity = dice.randint(1, 6), round(dice.random(), 3)
        city = dice.choice(list(PRICES))
        price = 100 + 55 * r - 40 * humidity + PRICES[city] + dice.gauss(0, 3)
        lines.append(f"{rooms or r},{humidity},{city},{price:.2f}")
    return "\n".join(lines) + "\n"


class Project:
    """A folder as a user has it, and the world of the loop around it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name, text in {
            "config/config.yaml": CONFIG, "config/checks.yaml": CHECKS, "data/homes.csv": table(),
            "src/__init__.py": "", "src/train.py": TRAIN,
        }.items():  # fmt: skip
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        self.loaded = config.load(root, {})
        config.store(self.loaded)
        self.state = self.loaded.state
        keys.create_keys(self.state / "keys")
        self.world = LocalWorld(root, self.state, Declarations(lambda: self.loaded))
        self.seq = 1

    def do(self, what: str, *, stream: str = RUN, **spec) -> dict:
        """Have one job done; its result."""
        self.seq += 1
        whole = {"barred": [], "snapshot": "", "training_seq": 0, "bundle": "", **spec}
        self.world.start(stream, what, f"{stream}#{self.seq}", (), whole)
        deadline = time.monotonic() + DEADLINE_S
        while (seen := self.world.look(stream, what, f"{stream}#{self.seq}"))[
            "status"
        ] == "running":
            assert time.monotonic() < deadline, seen
            time.sleep(0.05)
        return seen

    def folder(self, seq: int, what: str) -> Path:
        return self.world.workers.folder(RUN, seq, what)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project nobody changes after its run."""
    return Project(tmp_path_factory.mktemp("homes"))


@pytest.fixture(scope="module")
def run(project):
    """What each job of one run left behind, and the seq of its training."""
    snapshot = project.do("snapshot")
    training = project.do("training", snapshot=snapshot.get("made"))
    training_seq = project.seq
    pack = project.do("pack", snapshot=snapshot.get("made"), training_seq=training_seq)
    evaluation = project.do("evaluation", snapshot=snapshot.get("made"), bundle=pack.get("made"))
    return {"snapshot": snapshot, "training": training, "training_seq": training_seq, "pack": pack,
            "evaluation": evaluation}  # fmt: skip


def test_each_job_of_a_run_is_done(run):
    causes = {w: run[w].get("cause") for w in ("snapshot", "training", "pack", "evaluation")}
    assert not any(causes.values()), causes


def test_a_snapshot_counts_its_rows_and_reads_back(project, run):
    snapshot = run["snapshot"]
    assert (snapshot["n_source"], snapshot["n_traffic"], snapshot["passed"]) == (60, 0, True)
    assert snapshot["n_train"] + snapshot["n_heldout"] == 60
    assert snapshots.read(project.state, "homes", snapshot["made"]).height == 60


def test_training_sees_the_training_side_only_and_a_copy_of_the_code(project, run):
    training = run["training"]
    assert training["n_rows"] == run["snapshot"]["n_train"] < 60
    assert training["params"] == {"fit_intercept": True}
    code = project.folder(run["training_seq"], "training") / "code" / "src" / "train.py"
    assert code.read_text() == TRAIN


def test_the_packed_bundle_is_published_signed_and_answers_as_its_table(project, run):
    made, ring = run["pack"]["made"], keys.keyring(project.state / "keys")
    assert run["pack"]["flavour"] == "onnx", run["pack"]["reason"]
    manifest = bundles.verify(project.state, made, ring)
    assert manifest.snapshot == run["snapshot"]["made"]
    session = Session.open(bundles.path(project.state, made), ring)
    try:
        home = {"rooms": [3], "humidity": [0.5], "city": ["seoul"]}
        (price,) = session.predict(from_columns(home, session.schema)).values
    finally:
        session.close()
    assert price == pytest.approx(100 + 3 * 55 - 20 + 300, abs=10)


def test_the_evidence_is_what_the_gates_decide_by(project, run):
    evidence = run["evaluation"]["evidence"]
    assert evidence["n_heldout"] == run["snapshot"]["n_heldout"]
    assert evidence["champion"] is None
    verdicts = judge(evidence, project.loaded.declaration.models["homes"].gates)
    assert {n for n, v in verdicts.items() if v.answer is not Answer.ACCEPT} == set(), verdicts
    assert conclude(verdicts).answer is Answer.ACCEPT


def test_a_champion_is_measured_on_the_same_rows(project, run):
    routes = {"epoch": 1, "seq": 1, "arms": [{"bundle": run["pack"]["made"], "role": "champion"}]}
    path = project.state / "routes" / "homes.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(routes))
    try:
        again = project.do(
            "evaluation", snapshot=run["snapshot"]["made"], bundle=run["pack"]["made"]
        )
    finally:
        path.unlink()
    theirs = again["evidence"]["champion"]
    assert theirs["bundle"] == run["pack"]["made"]
    assert theirs["difference"] == pytest.approx(0.0, abs=1e-9)  # it is compared with itself


def a_spec(project: Project, **more) -> dict:
    return {"project": str(project.root), "state": str(project.state), "model": "homes",
            "declaration": project.loaded.digest, "barred": [], **more}  # fmt: skip


def test_rows_that_break_a_rule_are_counted_and_not_passed(tmp_path):
    project = Project(tmp_path)
    (tmp_path / "data" / "homes.csv").write_text(table(rooms=70))
    seen = tasks.snapshot(tmp_path, a_spec(project))
    assert not seen["passed"]
    (broken,) = seen["checks"]["broken"]
    assert (broken["column"], broken["rows"]) == ("rooms", 60)


def test_a_table_that_is_gone_is_named(tmp_path):
    project = Project(tmp_path)
    (tmp_path / "data" / "homes.csv").unlink()
    with pytest.raises(GyrostatError, match=r"data/homes\.csv"):
        tasks.snapshot(tmp_path, a_spec(project))


def test_a_script_finds_its_file_as_the_source_has_it_with_the_training_rows_alone(tmp_path):
    project = Project(tmp_path)
    text = table().replace(",", ";").replace(".", ",")
    (tmp_path / "data" / "homes.csv").write_text(text.replace("seoul", "서울"), encoding="cp949")
    source = '{path: data/homes.csv, encoding: cp949, separator: ";", decimal: ","}'
    declared = CONFIG.replace('"data/homes.csv"', source)
    (tmp_path / "config" / "config.yaml").write_text(declared)
    project.loaded = config.load(tmp_path, {})
    config.store(project.loaded)
    seen = tasks.snapshot(tmp_path, a_spec(project))
    rows, schema, _ = tasks._rows(a_spec(project, snapshot=seen["made"]))
    train = rows.filter(rows["_side"] == "train")
    settings = project.loaded.declaration.models["homes"].data.source
    head, *lines = tasks._in_its_format(train, schema, settings).decode("cp949").splitlines()
    assert head == "rooms;humidity;city;price"
    was = (tmp_path / "data" / "homes.csv").read_text(encoding="cp949").splitlines()[1:]

    def values(line: str) -> tuple:
        rooms, humidity, city, price = line.replace(",", ".").split(";")
        return int(rooms), float(humidity), city, float(price)

    assert len(lines) == seen["n_train"]
    assert {values(line) for line in lines} < {values(line) for line in was}


def offered(project, snapshot, model, side="train"):
    """The training of a run that takes a model from a notebook."""
    rows = snapshots.read(project.state, "homes", snapshot)
    rows = rows.filter(rows["_side"] == side)
    X, y = rows.select("rooms", "humidity", "city").to_pandas(), rows["price"].to_numpy()
    kept = offer.keep(project.state, "homes", model(X, y), X, y)
    return project.do("training", snapshot=snapshot, offered=kept.digest)


def a_pipeline(X, y):
    scope = {}
    exec(TRAIN, scope)
    return scope["train"](X.assign(price=y), {"target": "price", "fit_intercept": True})


def test_an_offered_model_is_packed_and_judged_as_a_trained_one(project, run):
    snapshot = run["snapshot"]["made"]
    training = offered(project, snapshot, a_pipeline)
    assert training.get("cause") is None
    assert training["run"] == "Pipeline, offered from a notebook"
    assert training["offered"]["n_train"] == training["n_rows"] == run["snapshot"]["n_train"]
    pack = project.do("pack", snapshot=snapshot, training_seq=project.seq)
    assert pack["flavour"] == "onnx", pack
    card = (bundles.path(project.state, pack["made"]) / "card.md").read_text()
    assert "Fitted elsewhere and offered" in card
    assert "never trained on" not in card
    evidence = project.do("evaluation", snapshot=snapshot, bundle=pack["made"])["evidence"]
    assert evidence["n_heldout"] == run["snapshot"]["n_heldout"]


def test_a_model_offered_with_rows_that_judge_it_is_refused(project, run):
    training = offered(project, run["snapshot"]["made"], a_pipeline, side="heldout")
    assert training["status"] == "failed"
    assert "offered rows are held out" in training["cause"]


def test_the_module_that_an_offered_model_lacks_is_named(project, run, tmp_path, monkeypatch):
    (tmp_path / "beside_the_notebook.py").write_text(
        "class Flat:\n    def predict(self, X):\n        return [0.0] * len(X)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    flat = importlib.import_module("beside_the_notebook").Flat
    training = offered(project, run["snapshot"]["made"], lambda X, y: flat())
    assert "needs the module 'beside_the_notebook'" in training["cause"]
    assert "put its file under src/" in training["cause"]


BATCH = {
    "batch": "nightly",
    "due": 0.0,
    "version": 4,
    "input": "in/day.csv",
    "output": "out/day.csv",
}


def test_a_batch_is_answered_into_a_folder_of_its_own_with_what_the_record_needs(project, run):
    (project.root / "in").mkdir(exist_ok=True)
    (project.root / "in" / "day.csv").write_text(
        "city,rooms,humidity\nseoul,3,0.5\nbusan,many,0.5\n"
    )
    done = project.do("scoring", stream="batching/homes", bundle=run["pack"]["made"], **BATCH)
    assert (done["status"], done["n_rows"], done["n_failed"]) == ("done", 2, 1), done
    answers = project.root / "out" / "day.csv"
    assert done["made"] == hashlib.sha256(answers.read_bytes()).hexdigest()
    first, second = csv.DictReader(answers.read_text().splitlines())
    assert list(first) == ["row", "city", "prediction", "version", "error"]
    assert (first["row"], first["city"], first["version"], first["error"]) == (
        "1",
        "seoul",
        "4",
        "",
    )
    assert "rooms" in second["error"]


def test_a_batch_without_its_input_says_which_and_is_not_tried_again(project, run):
    spec = BATCH | {"input": "in/none.csv"}
    failed = project.do("scoring", stream="batching/homes", bundle=run["pack"]["made"], **spec)
    assert (failed["status"], failed["retryable"]) == ("failed", False)
    assert "none.csv" in failed["cause"]


REPLAY = {
    "batch": "nightly", "of": 3, "input": "in/known.csv", "version": 5, "champion_version": 4, "alpha": 0.025,
}  # fmt: skip


def test_a_table_is_replayed_by_both_and_labels_in_it_are_taken(project, run):
    (project.root / "in").mkdir(exist_ok=True)
    (project.root / "in" / "known.csv").write_text(table(200))
    bundle = run["pack"]["made"]
    done = project.do("replay", stream="production/homes", bundle=bundle, champion_bundle=bundle, **REPLAY)  # fmt: skip
    assert done["status"] == "done", done
    found = done["evidence"]
    assert (done["champion_bundle"], done["of"]) == (bundle, 3)
    assert (found["n"], found["n_labels"], found["changed"]["value"]) == (200, 200, 0.0)
    assert found["limits"]["rmse"]["upper"] < 40
    folder = project.world.workers.folder("production/homes", project.seq, "replay")
    content = (folder / "evidence.json").read_bytes()
    assert done["made"] == "evidence:" + hashlib.sha256(content).hexdigest()
    assert not list(folder.glob("*.parquet"))


def test_answers_wait_while_somebody_else_writes_the_same_file(project, run):
    (project.root / "in").mkdir(exist_ok=True)
    (project.root / "in" / "day.csv").write_text("city,rooms,humidity\nseoul,3,0.5\n")
    (project.root / "out").mkdir(exist_ok=True)
    with parts.Parts(project.root / "out" / "day.csv").held({}, 0.0):
        failed = project.do("scoring", stream="batching/homes", bundle=run["pack"]["made"], **BATCH)
    assert (failed["status"], failed["retryable"]) == ("failed", True)
    assert "day.csv" in failed["cause"]
