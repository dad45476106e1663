"""Builders of frames, labels and references for the monitor's tests."""

import numpy as np
from gyrostat_runtime.log import Frame, Heartbeat, Label
from gyrostat_runtime.schema import Column, Feature, Output, Schema

from gyrostat.monitoring.reference import Reference

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
T0 = 1_800_000_000.0


def an_id(at, number):
    ms, letters = int(at * 1000), []
    for _ in range(10):
        letters.append(_ALPHABET[ms % 32])
        ms //= 32
    return "".join(reversed(letters)) + f"{number:016d}"


def a_schema(task="regression"):
    output = (
        Output("regression", "quality")
        if task == "regression"
        else Output("binary", "churned", classes=("no", "yes"), positive="yes")
    )
    return Schema(
        (Column("alcohol", "number"), Column("plan", "category", categories=("a", "b"))),
        (Feature("alcohol", "alcohol"), Feature("plan", "plan")),
        output,
    )


def a_reference(task="regression", *, n=1300, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=n)
    edges = np.unique(np.quantile(values, np.arange(1, 64) / 64, method="inverted_cdf"))
    counts = np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)
    number = {"kind": "number", "edges": edges.tolist(), "counts": counts.tolist(), "n_missing": 0}
    plans = {
        "kind": "category",
        "values": ["a", "b"],
        "counts": [n // 2, n - n // 2],
        "n_missing": 0,
    }
    outputs = number if task == "regression" else {**plans, "values": ["no", "yes"]}
    return {
        "format": 1, "n": n, "outputs": outputs,
        "columns": {"alcohol": {"column": "alcohol", **number}, "plan": {"column": "plan", **plans}},
    }  # fmt: skip


def a_known(task="regression", **changes):
    return Reference.of(a_schema(task), a_reference(task, **changes))


def a_frame(number, *, at, **changes):
    value = changes.pop("value", 0.1)
    return Frame(
        **{
            "id": an_id(at, number),
            "at": at,
            "routes_seq": 1,
            "bundle": "b1",
            "arm": "champion",
            "status": 200,
            "latency_s": 0.002,
            "n": 1,
            "inputs": [[value, "ab"[number % 2]]],
            "outputs": [value],
            "scores": [value],
            **changes,
        }
    )


def a_beat(at, writer="w0"):
    return (writer, Heartbeat(writer, at))


def a_label(frame, label, *, row=None, after=1.0):
    return Label(frame.id if row is None else f"{frame.id}.{row}", label, frame.at + after, "test")
