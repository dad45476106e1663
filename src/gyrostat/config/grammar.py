"""Every key of the declaration, in the order in which a person reads it. The one list: reader, schema and help use it."""

from __future__ import annotations

import codecs
import itertools
import re
from datetime import datetime
from typing import Any

from gyrostat.config.fields import (
    PERCENT,
    Each,
    Group,
    Mistake,
    Value,
    anything,
    bound,
    choice,
    duration,
    flag,
    margin,
    number,
    percent,
    rate,
    refuse,
    shown,
    size,
    text,
    texts,
)  # fmt: skip
from gyrostat.config.receivers import ALLOWED, ANCHOR, ANCHOR_SCHEMA, SCHEMA, anchors, receivers
from gyrostat.data.settings import SPAN, Span
from gyrostat.gates.metrics import METRICS
from gyrostat.schedule import Schedule, check

TASKS = ("regression", "binary", "multiclass")
LATER = "This release knows regression, binary and multiclass."
SERVICE = ("error_rate", "latency_p99")
"""What is limited about answering, whatever the model is."""
LIMITED = (*METRICS, *SERVICE)
FOLLOWED = ("rmse", "mae", "accuracy", "brier", "log_loss")
"""The keys of `stats.losses.LOSS_OF`; written here too because that module loads numpy, and `status` reads this one."""
GUARDED = (*FOLLOWED, *SERVICE)
"""What can be followed answer by answer and label by label; the others are judged by the gates, on held-out rows."""


SCHEDULE = '{schedule: {cron: "0 6 3 * *", zone: Asia/Seoul}}'
SCHEDULE_FORM = {
    "type": "object",
    "required": ["schedule"],
    "additionalProperties": False,
    "properties": {
        "schedule": {
            "type": "object",
            "required": ["cron"],
            "additionalProperties": False,
            "properties": {"cron": {"type": "string"}, "zone": {"type": "string"}},
        }
    },
}
SHARE_FORMS = (
    {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    {"type": "string", "pattern": PERCENT},
)


SHARE = "a share: 1% to 90%, or 0.01 to 0.9"
SPANS = "span of time: 3 months, 12 weeks, 60d, 24h"
OUTPUT = r"[^/]\.([pP][aA][rR][qQ][uU][eE][tT]|[cC][sS][vV])$"
SPAN_FORM = {"type": "string", "pattern": SPAN}


def _limit() -> Group:
    one = bound()
    return Group({"max": one, "min": one}, "one side: {max: 0.70} or {min: 0.8}")


def _steps(value: Any) -> tuple[float, ...]:
    allowed = "a list of growing shares, shadow first if at all: [shadow, 5%, 25%, 50%]"
    if value == []:
        return ()
    if not isinstance(value, list):
        raise refuse(value, allowed)
    share = percent("", "")
    steps = tuple(0.0 if v == "shadow" else share.read(v) for v in value)
    if 0.0 in [step for step, v in zip(steps, value, strict=True) if v != "shadow"]:
        raise refuse(value, allowed)
    if any(not a < b for a, b in itertools.pairwise(steps)) or steps[-1] >= 1:
        raise refuse(value, allowed)
    if steps[-1] == 0:
        raise refuse(value, allowed + "; at least one share above shadow")
    return steps


def _triggers(value: Any) -> tuple[str | Schedule, ...]:
    allowed = ("decay", "drift", "new_data")
    if not isinstance(value, list):
        raise refuse(value, f"a list of {', '.join(allowed)}, {SCHEDULE}")
    found = tuple(_schedule(t) if isinstance(t, dict) or t == "schedule" else t for t in value)
    for trigger in found:
        if trigger not in allowed and not isinstance(trigger, Schedule):
            raise refuse(trigger, f"{', '.join(allowed)}, {SCHEDULE}", options=allowed)
    if len(set(found)) < len(found):
        raise refuse(value, "each of them once")
    return found


def _schedule(value: Any) -> Schedule:
    said = value.get("schedule") if isinstance(value, dict) and len(value) == 1 else None
    if not isinstance(said, dict) or "cron" not in said or not set(said) <= {"cron", "zone"}:
        raise refuse(value, SCHEDULE)
    if not all(isinstance(part, str) for part in said.values()):
        raise refuse(said, f"texts in quotes, as in {SCHEDULE}")
    schedule = Schedule(**said)
    try:
        check(schedule)
    except ValueError as error:
        raise Mistake(str(error)) from None
    return schedule


def _span(value: Any, allowed: str) -> Span:
    try:
        return Span.parse(str(value))
    except ValueError:
        raise refuse(value, allowed) from None


def _holdout(value: Any) -> float | Span:
    if isinstance(value, str) and not value.strip().endswith("%"):
        return _span(value, f"{SHARE}, or with `by` the newest {SPANS}")
    return percent("", "", low=0.01, high=0.9).read(value)


def _gap(value: Any) -> Span | None:
    return None if value == "" else _span(value, SPANS)


def _window(value: Any) -> int | Span:
    if isinstance(value, str):
        return _span(value, f"a whole number of rows, or the newest {SPANS}")
    return int(number(0, "", low=0, whole=True).read(value))


def _version(value: Any) -> int:
    if value != 1 or isinstance(value, bool):
        raise refuse(value, "1, the only form that this release reads")
    return 1


def _date(value: Any) -> str:
    try:
        if value != "":
            datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise refuse(value, "a date or a time: 2025-04-01, 2025-04-01T12:00:00+09:00") from None
    return value


def _path(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise refuse(value, "the path of a table, relative to the project: data/wine.csv")
    if "*" in value or "?" in value:
        raise Mistake(
            f"{shown(value)}: several files are not there yet. Join them into one table, and name that.",
            is_not_yet=True,
        )
    if "://" in value:
        raise Mistake(
            f"{shown(value)}: tables of other systems are not there yet. Copy it into data/, and name that.",
            is_not_yet=True,
        )
    return value


def _output(value: Any) -> str:
    if not isinstance(value, str) or not re.search(OUTPUT, value):
        raise refuse(value, "a path that ends in .parquet or .csv: out/answers.parquet")
    return value


def _encoding(value: Any) -> str:
    try:
        codecs.lookup(value)
    except (TypeError, LookupError, ValueError):
        known = ("utf-8", "cp949", "latin-1", "cp1252", "utf-16")
        raise refuse(value, f"an encoding: {', '.join(known)}, ...", options=known) from None
    return value


def _separator(value: Any) -> str:
    if not isinstance(value, str) or len(value) != 1:
        raise refuse(value, 'one character: "," ";" "\\t" "|"')
    return value


RUN = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*|[^:]+\.py")


def _run(value: Any) -> str:
    if not isinstance(value, str) or not RUN.fullmatch(value):
        raise refuse(
            value, "module:function (src.train:train), or the path of a script (src/train.py)"
        )
    return value


SOURCE = Group(
    {
        "path": Value(
            _path,
            "a path: data/wine.csv",
            "the table, relative to the project",
            None,
            {"type": "string", "minLength": 1},
            is_required=True,
        ),
        "format": choice(
            ("", "csv", "parquet", "jsonl"), "", "empty: CSV, or Parquet by its first bytes"
        ),
        "encoding": Value(
            _encoding, "utf-8, cp949, latin-1, ...", "of its text", "utf-8", {"type": "string"}
        ),
        "separator": Value(
            _separator,
            "one character",
            "between fields",
            ",",
            {"type": "string", "minLength": 1, "maxLength": 1},
        ),
        "decimal": choice((".", ","), ".", "in numbers"),
        "thousands": choice(("", ",", ".", " ", "'"), "", "in numbers"),
        "skip_lines": number(
            0, "lines above the header that are no part of the table", low=0, whole=True
        ),
        "header": flag(True, "whether the first line names the columns"),
    },
    "where rows come from",
    short="path",
)
COLUMN = Group(
    {
        "kind": choice(
            ("", "number", "integer", "boolean", "category", "date"), "", "empty: as read"
        ),
        "format": text(
            "",
            "dates: a strptime format; numbers: how 1234.5 is written, as in 1.234,5 or ₩1,234.5",
        ),
        "missing": texts("texts that stand for a missing value"),
    },
    "what one column is",
)
BATCH = Group(
    {
        "input": Value(
            _path,
            "a path: exports/customers.csv",
            "the table, relative to the project; {date} in it is the day it is due",
            None,
            {"type": "string", "minLength": 1},
            is_required=True,
        ),
        "output": Value(
            _output,
            "a path that ends in .parquet or .csv: out/answers.parquet",
            "the answers, relative to the project; {date} in it is the day it is due, without it each takes the place of the one before",
            None,
            {"type": "string", "pattern": OUTPUT},
            is_required=True,
        ),
        "schedule": Group(
            {
                "cron": text(None, 'when, as cron has it: "0 6 * * *"', is_required=True),
                "zone": text("UTC", "by the clock of which place: Asia/Seoul"),
            },
            "when it comes due",
        ),
        "keep": texts("columns of the input that stand beside the answers, besides data.keys"),
    },
    "one table that is answered again and again",
)
MODEL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
NAMES = "letters, digits, _ and -, at most 64"
MODEL = Group(
    {
        "data": Group(
            {
                "source": SOURCE,
                "target": text(None, "the column to predict", is_required=True, allow_empty=False),
                "task": choice(
                    TASKS,
                    "regression",
                    "what the model answers",
                    {"ranking": LATER, "forecast": LATER, "clustering": LATER},
                ),
                "keys": Group(
                    {
                        "entity": text("", "what a row is about"),
                        "event_at": text("", "when it happened"),
                    },
                    "columns that identify",
                ),
                "split": Group(
                    {
                        "holdout": Value(
                            _holdout,
                            SHARE,
                            "held-out rows: a share, or with `by` the newest span: 3 months",
                            "20%",
                            {
                                "anyOf": [
                                    {"type": "number", "minimum": 0.01, "maximum": 0.9},
                                    {"type": "string", "pattern": PERCENT},
                                    SPAN_FORM,
                                ]
                            },
                        ),
                        "group": text("", "rows with the same value stay on one side"),
                        "by": text("", "a date column: the latest rows are held out"),
                        "cut": Value(
                            _date,
                            "a date: 2025-04-01",
                            "where held-out rows begin, where it stands still",
                            "",
                            {"type": "string"},
                        ),
                        "gap": Value(
                            _gap,
                            SPANS,
                            "this close before the held-out rows none is trained on",
                            "",
                            {"anyOf": [SPAN_FORM, {"const": ""}]},
                        ),
                    },
                    "which rows are held out",
                ),
                "columns": Each(COLUMN, "what cannot be seen from the values alone"),
                "exclude": texts(
                    "columns that are no features: ids, and what is known only afterwards"
                ),
                "personal": texts("hashed in logs, masked in errors"),
                "learn_from_traffic": flag(True, "labelled predictions join the next training"),
                "window": Value(
                    _window,
                    "a whole number of rows, or a span of time",
                    "newest rows that count, by number or by time (12 months); 0: all",
                    0,
                    {"anyOf": [{"type": "integer", "minimum": 0}, SPAN_FORM]},
                ),
                "checks": text("checks.yaml", "the rules, beside config.yaml"),
            },
            "rows, target, split",
        ),
        "train": Group(
            {
                "run": Value(
                    _run,
                    "src.train:train, or src/train.py",
                    "a function (frame, params) -> fitted model, or a script",
                    "src.train:train",
                    {"type": "string", "pattern": f"^({RUN.pattern})$"},
                ),
                "params": anything({}, "passed to the training"),
                "resources": Group(
                    {
                        "time": duration("10min", "then it is ended"),
                        "memory": size("2GB", "then it is ended"),
                    },
                    "bounds",
                ),
                "python": text(
                    "",
                    "another interpreter, such as .venv-train/bin/python: a path is relative to the project; it needs pandas, "
                    "pyarrow and cloudpickle, and versions of Python and of the model's libraries that fit those here",
                ),
                "writes": texts("folders it may write to besides its own, relative to the project"),
            },
            "what to run",
        ),
        "limits": Each(
            _limit(),
            'what "good" means: gates, guardrails and monitor all hold these, by the bound, not the point',
            names=", ".join(LIMITED),
            known=LIMITED,
        ),
        "output": Group(
            {
                "positive": text("", "the class that counts"),
                "threshold": number(0.5, "answer positive from here", low=0, high=1),
            },
            "binary",
            later={
                "probability": "It is logged beside each answer, and a threshold is output.threshold."
            },
        ),
        "gates": Group(
            {
                "champion": Group(
                    {
                        "metric": choice(
                            ("", *METRICS),
                            "",
                            "compared with the champion; empty: rmse, or accuracy for classes",
                        ),
                        "margin": number(0.01, "how much worse is the same", low=0),
                    },
                    "not worse than the champion",
                ),
                "undecided": Group(
                    {
                        "after": duration("7d", "deadline"),
                        "then": choice(("ask", "reject", "hold"), "ask", "its end"),
                    },
                    "too few rows",
                ),
                "size": Group({"max": size("200MB", "largest bundle")}, "of a bundle", short="max"),
                "confidence": percent("95%", "of the intervals that decide", low=0.5, high=0.9999),
                "min_newer_rows": number(
                    100,
                    "newer held-out rows that suffice to compare on them alone",
                    low=10,
                    whole=True,
                ),
            },
            "before a release",
        ),
        "rollout": Group(
            {
                "approval": choice(("first", "always", "never"), "first", "when a person is asked"),
                "bake": Group(
                    {
                        "requests": number(200, "each step at least", low=1, whole=True),
                        "time": duration("2min", "each step at least"),
                    },
                    "what each step must have seen",
                ),
                "steps": Value(
                    _steps,
                    "growing shares",
                    "shares of traffic; []: a model that only scores batches is released by replay of one",
                    ["shadow", "5%", "25%", "50%"],
                    {
                        "type": "array",
                        "items": {"anyOf": [{"const": "shadow"}, *SHARE_FORMS]},
                    },
                ),
                "guardrails": Each(
                    margin("how much worse than the champion beside it"),
                    "against the champion beside it",
                    names=", ".join(GUARDED),
                    known=GUARDED,
                    elsewhere={
                        name: f"{name} cannot be followed label by label; the gates judge it on held-out rows (limits)."
                        for name in METRICS
                        if name not in FOLLOWED
                    },
                ),
                "expires": duration("7d", "a canary without enough traffic"),
                "then": choice(("ask", "reject", "hold"), "ask", "what happens then"),
                "watch": duration("24h", "after promotion, a broken limit rolls back by itself"),
                "wrong_decisions": percent(
                    "5%", "good releases rolled back, or bad ones promoted", low=0.0001, high=0.5
                ),
            },
            "how a candidate takes over",
        ),
        "monitoring": Group(
            {
                "drift": Group(
                    {
                        "shift": number(0.25, "distance that matters", low=0, high=1),
                        "false_alarms": rate("1 per month", "budget"),
                    },
                    "when a feature, or the prediction, has moved",
                ),
                "keep": duration("90d", "the prediction log"),
            },
            "what is watched",
        ),
        "labels": Group(
            {"mature_after": duration("0s", "younger rows count nowhere")}, "when labels count"
        ),
        "retraining": Group(
            {
                "triggers": Value(
                    _triggers,
                    f"decay, drift, new_data, {SCHEDULE}",
                    "what asks for a run",
                    ["decay", "new_data"],
                    {
                        "type": "array",
                        "uniqueItems": True,
                        "items": {
                            "anyOf": [{"enum": ["decay", "drift", "new_data"]}, SCHEDULE_FORM]
                        },
                    },
                ),
                "cooldown": duration("6h", "after a run"),
                "budget": rate("4 per day", "runs at most"),
                "new_rows": percent(
                    "20%",
                    "new_data: labelled rows since the champion's snapshot",
                    low=0.001,
                    high=10,
                ),
            },
            "what asks for a new model",
            later={"schedule": f"Write it among the triggers: triggers: [decay, {SCHEDULE}]"},
        ),
        "serving": Group(
            {
                "missing": choice(("as_trained", "refuse"), "as_trained", "a missing value"),
                "new_category": choice(("answer", "refuse"), "answer", "a new category"),
                "durable": flag(
                    False, "an answer leaves only once its place in the log is on the disk"
                ),
                "log_sample": percent(
                    "100%",
                    "of the predictions, logged with inputs; the others cannot be learned from",
                ),
                "memory": size(
                    "0B",
                    "of the process of a model that is not ONNX: then another takes its place; 0B: 2 GB more than it takes "
                    "for its first answer",
                ),
            },
            "what counts as an answer, and what answering may take",
        ),
        "batch": Each(
            BATCH, "tables that the champion answers on a schedule", NAMES, MODEL_NAME.pattern
        ),
    },
    "one model",
)


def is_model_name(name: str) -> bool:
    """Letters, digits, _ and -: it becomes part of refs, routes and file names."""
    return bool(MODEL_NAME.fullmatch(name))


GRAMMAR = Group(
    {
        "version": Value(
            _version, "1", "the form of this file", None, {"const": 1}, is_required=True
        ),
        "models": Each(MODEL, "by name", NAMES, MODEL_NAME.pattern),
        "server": Group(
            {
                "port": number(8080, "predictions", low=1, high=65535, whole=True),
                "host": choice(
                    ("127.0.0.1",),
                    "127.0.0.1",
                    "loopback only",
                    {"0.0.0.0": "Put a proxy in front of 127.0.0.1."},  # noqa: S104
                ),
                "workers": number(1, "processes", low=1, high=64, whole=True),
                "max_body": size("16MB", "largest request"),
                "log_sync": duration(
                    "200ms",
                    "a killed server loses at most what it logged in this time",
                    low=0.01,
                    high=60,
                ),
                "access_log": choice(
                    ("off", "file", "stdout"), "off", "a JSON line for each request"
                ),
            },
            "the model server",
        ),
        "control_room": Group(
            {"port": number(7007, "the page", low=1, high=65535, whole=True)}, "the page"
        ),
        "governance": Group(
            {"approvers": texts("who may approve; empty: whoever can run the command")},
            "who decides",
        ),
        "storage": Group(
            {
                "budget": size(
                    "1TB",
                    "`gyrostat gc` keeps the state folder below it, as far as what is needed allows",
                )
            },
            "what may stay on disk",
        ),
        "audit": Group(
            {
                "anchor": Value(
                    anchors, ANCHOR, "where signed heads of the chain are kept", [], ANCHOR_SCHEMA
                ),
                "every": duration("10min", "at most so long after something new"),
            },
            "how the record can be proven",
        ),
        "notify": Value(
            receivers,
            ALLOWED,
            "who is told when a person is needed, or something was rolled back, stuck or failed",
            [],
            SCHEMA,
        ),
    },
    "the declaration",
)
SHIELDED = re.compile(r"governance\..*|models\.[^.]+\.rollout\.approval")
"""What no environment variable may change: who decides is read from files, which have a history."""
