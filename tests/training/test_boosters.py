"""LightGBM and XGBoost: served as a graph that answers as they do, or as they are with the reason on record."""

import numpy as np
import pandas as pd
import pytest
from gyrostat_runtime import bundle, keys
from gyrostat_runtime.rows import from_columns
from gyrostat_runtime.session import Session
from scipy.sparse import issparse
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import VotingRegressor
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder
from threadpoolctl import threadpool_limits
from training.tables import a_schema, a_table, as_columns, pickled, prepared, targets

from gyrostat.training import probes
from gyrostat.training.onnx_convert import ConversionError, attempts
from gyrostat.training.pack import pack

SMALL = {
    "lightgbm": {"n_estimators": 15, "n_jobs": 1, "random_state": 0, "verbose": -1},
    "xgboost": {"n_estimators": 15, "n_jobs": 1, "random_state": 0},
}
BAGGED = {"boosting_type": "rf", "subsample": 0.6, "subsample_freq": 1}


@pytest.fixture(autouse=True)
def one_thread():
    """Small fits on a busy machine: threads that spin cost more than they help."""
    with threadpool_limits(1):
        yield


def made(name, **settings):
    """An estimator by its name; skips where its library is not installed."""
    home = "lightgbm" if name.startswith("LGBM") else "xgboost"
    library = pytest.importorskip(home, reason=f"{home} is not installed")
    return getattr(library, name)(**SMALL[home] | settings)


def labels(estimator, z, task):
    """The target as the library takes it: XGBoost wants codes for classes."""
    y = targets(z)[task]
    codes = type(estimator).__module__.startswith("xgboost") and task != "regression"
    return np.unique(y, return_inverse=True)[1] if codes else y


def wide(n=400):
    """A table whose one-hot columns are mostly empty, so that its matrix is sparse."""
    table, z = a_table(n, has_text=True)
    code = np.random.default_rng(1).integers(0, 40, n)
    table["code"] = np.array([f"k{c}" for c in code], dtype=object)
    return table, z + 3 * (code < 4)


def with_holes():
    """Numbers around 0, each missing now and then: where a missing value goes is up to the model itself."""
    table, z = a_table(400)
    table = table - table.median()
    return table.mask(np.random.default_rng(1).random(table.shape) < 0.2), z


def fitted(estimator, shape, task):
    """A model of that shape, and the table it was fitted on."""
    tables = {"sparse": wide, "holes": with_holes}
    table, z = tables.get(shape, lambda: a_table(400, has_text=shape == "text"))()
    y = labels(estimator, np.abs(z), task)
    if shape in ("text", "sparse"):
        model = make_pipeline(prepared(table), estimator).fit(table, y)
        assert issparse(model[:-1].transform(table)) == (shape == "sparse")
    elif shape == "array":
        model = estimator.fit(table.to_numpy(), y)
    else:
        model = estimator.fit(table, y)
    return model, table


def served(tmp_path, model, table, task):
    """What packing said, and the bundle as a server opens it."""
    result = pack(
        tmp_path / "bundle",
        name="wine",
        model=model,
        model_file=pickled(model, tmp_path / "model.pkl"),
        schema=a_schema(table, task),
        features=table.iloc[:300],
        heldout_features=table.iloc[300:],
        snapshot={},
        training={},
        made_at=0.0,
    )
    keys.create_keys(tmp_path / "keys")
    bundle.sign(tmp_path / "bundle", keys.private_key(tmp_path / "keys"))
    ring = keys.keyring(tmp_path / "keys")
    return result, Session.open(tmp_path / "bundle", ring, timeout_s=60)


def hostile(table, task):
    """Rows in the midst of the gaps that training left, and each oddity that a request may have."""
    schema = a_schema(table, task)
    between = probes.probes(table, schema, np.random.default_rng(7), 2000)
    return pd.concat([between, probes.edges(table, schema, probes.missing_in(table, schema))])


def assert_answers_as(model, session, rows, task):
    """Every score, and every label that is no tie, is the model's own."""
    found = session.predict(from_columns(as_columns(rows), session.schema))
    expected = probes.answers(model, rows)
    if task == "regression":
        apart = np.abs(found.scores - expected[:, 0]) / expected.std()
        assert apart.max() <= probes.MOST_SD
        return
    assert np.abs(found.scores - expected).max() <= probes.MOST_P
    top = np.sort(expected, axis=1)
    is_clear = top[:, -1] - top[:, -2] > probes.TIE
    names = np.unique(targets(a_table(400)[1])[task])
    said = model.predict(rows)
    own = said if said.dtype == object else names[said]
    assert is_clear.mean() > 0.9
    assert (np.array(found.values, dtype=object) == own)[is_clear].all()


AS_GRAPH = [
    ("LGBMRegressor", "regression", "text", {}),
    ("LGBMRegressor", "regression", "frame", {"boosting_type": "dart"}),
    ("LGBMRegressor", "regression", "sparse", {"objective": "poisson"}),
    ("LGBMRegressor", "regression", "array", {"reg_sqrt": True}),
    ("LGBMRegressor", "regression", "holes", {"use_missing": False}),
    ("LGBMClassifier", "binary", "text", {}),
    ("LGBMClassifier", "binary", "holes", {}),
    ("LGBMClassifier", "binary", "array", {}),
    ("LGBMClassifier", "multiclass", "text", {}),
    ("LGBMClassifier", "multiclass", "frame", {"class_weight": "balanced"}),
    ("XGBRegressor", "regression", "text", {}),
    ("XGBRegressor", "regression", "frame", {"objective": "reg:tweedie"}),
    ("XGBRegressor", "regression", "sparse", {"booster": "dart", "rate_drop": 0.3}),
    ("XGBRFRegressor", "regression", "array", {}),
    ("XGBClassifier", "binary", "sparse", {}),
    ("XGBClassifier", "binary", "holes", {}),
    ("XGBClassifier", "binary", "frame", {"base_score": 0.3}),
    ("XGBClassifier", "multiclass", "text", {}),
    ("XGBClassifier", "multiclass", "array", {"num_parallel_tree": 2}),
]


@pytest.mark.parametrize(
    ("name", "task", "shape", "settings"),
    AS_GRAPH,
    ids=[f"{n}-{t}-{s}-{'-'.join(k)}".strip("-") for n, t, s, k in AS_GRAPH],
)
def test_a_kind_becomes_a_graph_that_answers_in_its_session_as_the_model(
    tmp_path, name, task, shape, settings
):
    model, table = fitted(made(name, **settings), shape, task)
    result, session = served(tmp_path, model, table, task)
    assert (result.flavour, result.reason) == ("onnx", "exact")
    assert result.n_probes > 5000
    assert_answers_as(model, session, table, task)
    assert_answers_as(model, session, hostile(table, task), task)
    session.close()


AS_IT_IS = [
    ("LGBMRegressor", "regression", BAGGED, "LightGBM's random forest (boosting: rf)"),
    ("LGBMRegressor", "regression", {"linear_tree": True}, "LightGBM's linear_tree"),
    ("LGBMClassifier", "binary", {"zero_as_missing": True}, "LightGBM's zero_as_missing"),
    (
        "LGBMClassifier",
        "multiclass",
        {"objective": "multiclassova"},
        "LightGBM's objective multiclassova num_class:3 sigmoid:1",
    ),
    ("LGBMClassifier", "binary", {"sigmoid": 2.0}, "LightGBM's objective binary sigmoid:2"),
    ("XGBRegressor", "regression", {"booster": "gblinear"}, "XGBoost's booster gblinear"),
    ("XGBRegressor", "regression", {"missing": -1}, "XGBoost's missing=-1"),
    (
        "XGBClassifier",
        "binary",
        {"objective": "binary:hinge"},
        "XGBoost's objective binary:hinge",
    ),
]
AS_IT_IS = [(n, t, k, f"{says} is not converted") for n, t, k, says in AS_IT_IS]
SERVED = (AS_IT_IS[2][3], AS_IT_IS[6][3])
"""Starting a process takes seconds: one of each library for `make test`."""


@pytest.mark.parametrize(
    ("name", "task", "settings", "says"), AS_IT_IS, ids=[says for *_, says in AS_IT_IS]
)
def test_a_kind_that_is_not_read_is_not_converted_and_says_why(name, task, settings, says):
    model, table = fitted(made(name, **settings), "array", task)
    (attempt,) = attempts(model, a_schema(table, task))
    with pytest.raises(ConversionError) as raised:
        attempt.graph()
    assert str(raised.value) == says


@pytest.mark.parametrize(
    ("name", "task", "settings", "says"),
    [
        pytest.param(*kind, id=kind[-1], marks=[] if kind[3] in SERVED else pytest.mark.slow)
        for kind in AS_IT_IS
    ],
)
def test_a_kind_that_is_not_read_is_served_as_it_is_with_the_reason(
    tmp_path, name, task, settings, says
):
    model, table = fitted(made(name, **settings), "array", task)
    result, session = served(tmp_path, model, table, task)
    assert (result.flavour, result.reason) == ("native", says)
    assert_answers_as(model, session, table.iloc[:50], task)
    session.close()


def test_absent_cells_of_a_sparse_matrix_are_missing_to_xgboost_alone():
    """Its answers on the sparse and on the dense form of the same rows differ; the graph gives the first."""
    model, table = fitted(made("XGBRegressor"), "sparse", "regression")
    schema = a_schema(table, "regression")
    graph = probes.runner(next(attempts(model, schema)).graph(), schema)
    dense = model[-1].predict(model[:-1].transform(table).toarray())
    own = model.predict(table)
    assert np.abs(dense - own).max() > 0.1
    assert np.abs(graph(table)[:, 0] - own).max() < 1e-4


def test_a_category_of_lightgbm_is_cut_to_an_integer_as_it_cuts_it():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 30, 800).astype(float)
    codes[rng.random(800) < 0.1] = np.nan
    table = pd.DataFrame({"code": codes, "x": rng.normal(size=800)})
    y = np.where(table["code"].isin([0, 3, 4, 5, 9, 17, 29]), 5.0, 0.0) + table["x"]
    model = made("LGBMRegressor", min_data_per_group=5)
    model.fit(table.to_numpy(), y, categorical_feature=[0])
    assert "'=='" in str(model.booster_.dump_model())
    asked = [-1.5, -1, -0.9, 0, 0.5, 0.999, 1, 2.99, 3, 3.5, 5.999, 6, 8.99, 9, 17.5, 29.5, 30, 1e6]
    asked += [np.nan, -1e-9, np.nextafter(3, 0), np.nextafter(6, 0), 2.0**31 - 1]
    rows = pd.DataFrame({"code": asked, "x": 0.1})
    schema = a_schema(table, "regression")
    graph = probes.runner(next(attempts(model, schema)).graph(), schema)
    own = model.predict(rows.to_numpy())
    assert len(set(own.round(3))) >= 2
    assert np.abs(graph(rows)[:, 0] - own).max() < 1e-5


def test_categories_behind_an_encoder_are_lightgbms_own():
    table, z = wide(600)
    encoded = ColumnTransformer(
        [
            (
                "codes",
                OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
                ["city", "code"],
            )
        ]
    )
    model = make_pipeline(encoded, made("LGBMRegressor", min_data_per_group=5))
    model.fit(table, z, lgbmregressor__categorical_feature=[0, 1])
    assert "'=='" in str(model[-1].booster_.dump_model())
    schema = a_schema(table, "regression")
    graph = next(attempts(model, schema)).graph()
    assert probes.compare(graph, model, schema, table).agrees


# LightGBM 4.7 has other words for `eval_set`, which releases before it do not know.
@pytest.mark.filterwarnings("ignore:The argument 'eval_set'")
@pytest.mark.parametrize("name", ["LGBMRegressor", "XGBRegressor"])
def test_rounds_after_the_best_are_left_out(name):
    table, z = a_table(600)
    X, stop = table.to_numpy(), {}
    model = made(name, n_estimators=300, learning_rate=0.3)
    if name.startswith("LGBM"):
        stop = {"callbacks": [pytest.importorskip("lightgbm").early_stopping(3, verbose=False)]}
    else:
        model.set_params(early_stopping_rounds=3)
        stop = {"verbose": False}
    model.fit(X[:300], z[:300], eval_set=[(X[300:], z[300:])], **stop)
    best = model.best_iteration_ if name.startswith("LGBM") else model.best_iteration
    assert best < 100
    schema = a_schema(table, "regression")
    graph = next(attempts(model, schema)).graph()
    assert probes.compare(graph, model, schema, table).agrees


@pytest.mark.parametrize("name", ["LGBMRegressor", "XGBRegressor"])
@pytest.mark.parametrize("holder", ["search", "target"])
def test_a_booster_is_found_in_a_search_and_behind_a_transformed_target(name, holder):
    table, z = a_table(200)
    inner = made(name)
    model = (
        GridSearchCV(inner, {"n_estimators": [5, 9]}, cv=2)
        if holder == "search"
        else TransformedTargetRegressor(inner, func=np.log1p, inverse_func=np.expm1)
    ).fit(table, np.abs(z))
    schema = a_schema(table, "regression")
    graph = next(attempts(model, schema)).graph()
    assert probes.compare(graph, model, schema, table).agrees


def test_a_booster_inside_another_model_is_served_as_it_is(tmp_path):
    table, z = a_table(400)
    model = VotingRegressor([("one", made("LGBMRegressor"))]).fit(table, z)
    result, session = served(tmp_path, model, table, "regression")
    assert result.flavour == "native"
    assert "LGBMRegressor comes from 'lightgbm'" in result.reason
    session.close()
