from src.evaluate import score


def test_the_model_keeps_its_declared_limit_on_held_out_rows(table, model):
    output, gates = table["schema"].output, table["settings"].gates
    metric = gates.champion.metric
    limit = next(limit for limit in gates.limits if limit.metric == metric)
    rows = table["heldout"]
    found = score(
        list(rows[output.target]),
        list(model.predict(rows.drop(columns=[output.target]))),
        output.task,
    )
    assert found <= limit.max if limit.max is not None else found >= limit.min
