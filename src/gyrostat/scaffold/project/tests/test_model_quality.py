from src.evaluate import brier, score


def test_the_model_keeps_its_declared_limit_on_held_out_rows(table, model):
    output, gates = table["schema"].output, table["settings"].gates
    metric = gates.champion.metric
    limit = next(limit for limit in gates.limits if limit.metric == metric)
    rows = table["heldout"]
    features, labels = rows.drop(columns=[output.target]), list(rows[output.target])
    if metric == "brier":
        found = brier(labels, model.predict_proba(features), model.classes_)
    else:
        found = score(labels, list(model.predict(features)), output.task)
    assert found <= limit.max if limit.max is not None else found >= limit.min
