"""Being told no: what, where, which value, what is allowed, the nearest known key, and that nothing was changed."""

from __future__ import annotations

import pytest
from config.builders import DECLARATION, Read

from gyrostat.config.fields import Group, Value
from gyrostat.config.grammar import FOLLOWED, GRAMMAR
from gyrostat.errors import ConfigError, NotYetError


def line_of(text: str) -> int:
    return DECLARATION[: DECLARATION.index(text)].count("\n") + 1


def test_an_unknown_key_reads_as_promised(read: Read):
    with pytest.raises(ConfigError) as told:
        read("guardrails:", "guardrail:")
    assert str(told.value) == (
        f'config/config.yaml:{line_of("guardrails:")}  models.wine.rollout.guardrail: there is no such key. Did you mean "guardrails"?\n'
        "Keys here: approval, bake, expires, guardrails, steps, then, watch, wrong_decisions. Nothing was changed."
    )
    assert told.value.facts["key"] == "models.wine.rollout.guardrail"
    assert told.value.exit_code == 2


MISTAKES = [
    # old, new, key path, what is said besides
    ("models:", "modles:", "modles", 'Did you mean "models"?'),
    ("holdout: 20%", "holdout: 95%", "models.wine.data.split.holdout", "'95%' is not allowed here. Allowed: a share: 1% to 90%"),
    ("holdout: 20%", "holdout: 0", "models.wine.data.split.holdout", "0 is not allowed here"),
    ("holdout: 20%", "by: month", "models.wine.data.split", "either the newest span is held out, {by: COLUMN, holdout: 3 months}"),
    ("holdout: 20%", "by: month, holdout: 3 months, cut: 2025-04-01", "models.wine.data.split", "or what comes from a date on"),
    ("holdout: 20%", "holdout: 3 months", "models.wine.data.split", "needs the column that says when"),
    ("holdout: 20%", "gap: 60d", "models.wine.data.split", "needs the column that says when"),
    ("holdout: 20%", "by: month, holdout: 3 moons", "models.wine.data.split.holdout", "or with `by` the newest span of time: 3 months"),
    ("holdout: 20%", "by: month, holdout: 0d", "models.wine.data.split.holdout", "'0d' is not allowed here"),
    ("holdout: 20%", "by: month, holdout: 60d, gap: 1.5d", "models.wine.data.split.gap", "span of time: 3 months"),
    ("holdout: 20%", "by: month, holdout: 60d, group: who", "models.wine.data.split", "`by` and `group` contradict each other"),
    ("holdout: 20%", "by: month, cut: 2025-02-30", "models.wine.data.split.cut", "'2025-02-30' is not allowed here. Allowed: a date"),
    ("[shadow, 5%, 25%, 50%]", "[]", "models.wine.rollout.steps", "none is declared. Declare one under batch, or use [shadow, 50%]"),
    ("[shadow, 5%, 25%, 50%]", "[shadow, 25%, 5%]", "models.wine.rollout.steps", '["shadow", "25%", "5%"] is not allowed here. Allowed: a list of growing shares'),
    ("[shadow, 5%, 25%, 50%]", "[5%, shadow]", "models.wine.rollout.steps", "shadow first"),
    ("[shadow, 5%, 25%, 50%]", "[50%, 100%]", "models.wine.rollout.steps", "growing shares"),
    ("[shadow, 5%, 25%, 50%]", "[shadow]", "models.wine.rollout.steps", "at least one share above shadow"),
    ("[shadow, 5%, 25%, 50%]", "[0%, 5%]", "models.wine.rollout.steps", "growing shares"),
    ("[shadow, 5%, 25%, 50%]", "[shadow, 5]", "models.wine.rollout.steps", "5 is not allowed here. Allowed: a share"),
    ("[shadow, 5%, 25%, 50%]", "5%", "models.wine.rollout.steps", "'5%' is not allowed here. Allowed: a list"),
    ("10min", "10 minutes", "models.wine.train.resources.time", "'10 minutes' is not allowed here. Allowed: a time with its unit: 50ms, 30s, 10min, 24h, 7d."),
    ("10min", "600", "models.wine.train.resources.time", "600 is not allowed here"),
    ("10min", "-3s", "models.wine.train.resources.time", "'-3s' is not allowed here"),
    ("2GB", "2", "models.wine.train.resources.memory", "Allowed: a size with its unit: 200MB, 2GB."),
    ("{max: 200MB}", "{max: 200Mb}", "models.wine.gates.size.max", "'200Mb' is not allowed here"),
    ("port: 8080", "port: 80800", "server.port", "80800 is not allowed here. Allowed: a whole number, 1 to 65535."),
    ("port: 8080", "port: true", "server.port", "true is not allowed here"),
    ("port: 8080", "port: 80.5", "server.port", "80.5 is not allowed here"),
    ("port: 8080", 'port: "8080"', "server.port", "'8080' is not allowed here"),
    ("port: 8080", "port: 7007", "control_room.port", "7007 is server.port too"),
    ("task: regression", "task: regresion", "models.wine.data.task", 'Did you mean "regression"? Allowed: regression, binary, multiclass.'),
    ("target: quality", "target: 3", "models.wine.data.target", "quote it if it looks like a number"),
    ("target: quality", "target:", "models.wine.data.target", "no value stands here"),
    ("data/winequality-red.csv", "[a, b]", "models.wine.data.source", '["a", "b"] is not allowed here. Allowed: a path: data/wine.csv, or keys: path'),
    ("data/winequality-red.csv", "{path: a.csv, encoding: cp9499}", "models.wine.data.source.encoding", 'Did you mean "cp949"?'),
    ("data/winequality-red.csv", "{path: a.csv, separator: ', '}", "models.wine.data.source.separator", "one character"),
    ("data/winequality-red.csv", "{encoding: cp949}", "models.wine.data.source.path", "it is missing"),
    ("exclude: []", "exclude: [quality]", "models.wine.data.exclude", "it holds the target, 'quality'"),
    ("exclude: []", "exclude: id", "models.wine.data.exclude", "'id' is not allowed here. Allowed: a list of texts"),
    ("exclude: []", "exclude: [1]", "models.wine.data.exclude", "[1] is not allowed here"),
    ("exclude: []", "columns: {day: {kind: dat}}", "models.wine.data.columns.day.kind", 'Did you mean "date"?'),
    ("exclude: []", "columns: {age: {kind: number, format: '%d'}}", "models.wine.data.columns.age.format", "1234.5 is written"),
    ("src.train:train", "src.train.train", "models.wine.train.run", "module:function (src.train:train), or the path of a script (src/train.py)"),
    ("rmse: {max: 0.70}", "rmes: {max: 0.70}", "models.wine.limits.rmes", 'there is no such metric. Did you mean "rmse"?'),
    ("rmse: {max: 0.70}", "rmse: {min: 0.70}", "models.wine.limits.rmse.min", "of rmse, less is better. Allowed: {max: ...}."),
    ("rmse: {max: 0.70}", "rmse: {max: 0.7, min: 0.1}", "models.wine.limits.rmse.min", "exactly one side"),
    ("rmse: {max: 0.70}", "rmse: {}", "models.wine.limits.rmse", "exactly one side"),
    ("rmse: {max: 0.70}", "rmse: 0.70", "models.wine.limits.rmse", "0.7 is not allowed here; keys are needed: max, min."),
    ("rmse: {max: 0.70}", "rmse: {max: 50ms}", "models.wine.limits.rmse.max", "Allowed: a number"),
    ("rmse: {max: 0.70}", "rmse: {max: -1}", "models.wine.limits.rmse.max", "a number above 0"),
    ("rmse: {max: 0.70}", "accuracy: {min: 0.7}", "models.wine.limits.accuracy", "a regression model has no accuracy. Allowed: rmse, mae, r2, error_rate, latency_p99."),
    ("rmse: {max: 0.70}", "r2: {min: 1}", "models.wine.limits.r2.min", "a number below 1"),
    ("{max: 50ms}", "{max: 50}", "models.wine.limits.latency_p99.max", "50 is not allowed here. Allowed: a time with its unit: 50ms, 1s."),
    ("error_rate: {max: 1%}", "error_rate: {max: 1}", "models.wine.limits.error_rate.max", "a share below 100%"),
    ("metric: rmse", "metric: f1", "models.wine.gates.champion.metric", "a regression model has no f1"),
    ("margin: 0.01", "margin: -0.01", "models.wine.gates.champion.margin", "-0.01 is not allowed here. Allowed: a number, at least 0."),
    ("then: ask", "then: aks", "models.wine.gates.undecided.then", 'Did you mean "ask"? Allowed: ask, reject, hold.'),
    ("+1pp", "1pp%", "models.wine.rollout.guardrails.error_rate", "'1pp%' is not allowed here. Allowed: +1pp (points), x1.2 (ratio)"),
    ("x1.2", "x0.8", "models.wine.rollout.guardrails.latency_p99", "at least +0 or x1"),
    ("x1.2", "+1pp", "models.wine.rollout.guardrails.latency_p99", "latency_p99 is no share. Allowed: a ratio: x1.2."),
    ("rmse: x1.05", "rmse: +2pp", "models.wine.rollout.guardrails.rmse", "rmse is no share"),
    ("rmse: x1.05", "r2: x1.05", "models.wine.rollout.guardrails.r2", "r2 cannot be followed label by label"),
    ("rmse: x1.05", "accuracy: +2pp", "models.wine.rollout.guardrails.accuracy", "a regression model has no accuracy"),
    ("approval: first", "approval: no", "models.wine.rollout.approval", "'no' is not allowed here. Allowed: first, always, never."),
    ("wrong_decisions: 5%", "wrong_decisions: 0%", "models.wine.rollout.wrong_decisions", "'0%' is not allowed here"),
    ("shift: 0.25", "shift: 2", "models.wine.monitoring.drift.shift", "2 is not allowed here. Allowed: a number, 0 to 1."),
    ("4 per day", "4 a day", "models.wine.retraining.budget", "a count and a period: 4 per day, 1 per month"),
    ("4 per day", "400 per day", "models.wine.retraining.budget", "400 is not allowed here"),
    ("[decay, new_data]", "[decai]", "models.wine.retraining.triggers", 'Did you mean "decay"?'),
    ("[decay, new_data]", "[decay, decay]", "models.wine.retraining.triggers", "each of them once"),
    ("[decay, new_data]", "[schedule]", "models.wine.retraining.triggers", "zone: Asia/Seoul}}"),
    ("[decay, new_data]", "[{schedule: daily}]", "models.wine.retraining.triggers", "zone: Asia/Seoul}}"),
    ("[decay, new_data]", "[{schedule: {cron: 5}}]", "models.wine.retraining.triggers", "texts in quotes"),
    ("[decay, new_data]", "[{schedule: {cron: '0 25 * * *'}}]", "models.wine.retraining.triggers", "'25' is no hour. Allowed: 0 to 23"),
    ("[decay, new_data]", "[{schedule: {cron: '0 6 * * *', zone: Seoul}}]", "models.wine.retraining.triggers", "no time zone"),
    ("[decay, new_data]", "[{schedule: {cron: '0 0 31 2 *'}}]", "models.wine.retraining.triggers", "never comes"),
    ("    gates:", '    batch: {nightly: {input: in.csv}}\n    gates:', 'models.wine.batch.nightly.output', 'it is missing: the answers, relative to the project'),
    ("    gates:", '    batch: {nightly: {input: in.csv, output: out.csv}}\n    gates:', 'models.wine.batch.nightly.schedule.cron', 'it is missing: when, as cron has it'),
    ("    gates:", "    batch: {nightly: {input: in.csv, output: out.xlsx, schedule: {cron: '0 6 * * *'}}}\n    gates:", 'models.wine.batch.nightly.output', "'out.xlsx' is not allowed here. Allowed: a path that ends in .parquet or .csv"),
    ("    gates:", "    batch: {nightly: {input: in.csv, output: out.csv, schedule: {cron: '0 25 * * *'}}}\n    gates:", 'models.wine.batch.nightly.schedule', "'25' is no hour"),
    ("    gates:", "    batch: {nightly: {input: in.csv, output: out.csv, schedule: {cron: '0 6 * * *', zone: Soul}}}\n    gates:", 'models.wine.batch.nightly.schedule', 'no time zone'),
    ("    gates:", "    batch: {nightly: {input: in.csv, output: ./in.csv, schedule: {cron: '0 6 * * *'}}}\n    gates:", 'models.wine.batch.nightly.output', 'is its own input, and would be overwritten'),
    ("    gates:", "    batch: {nightly: {input: in.csv, output: data/winequality-red.csv, schedule: {cron: '0 6 * * *'}}}\n    gates:", 'models.wine.batch.nightly.output', 'is data.source, and would be overwritten'),
    ("    gates:", "    batch: {a: {input: in.csv, output: out.csv, schedule: {cron: '0 6 * * *'}}, b: {input: in.csv, output: out.csv, schedule: {cron: '0 6 * * *'}}}\n    gates:", 'models.wine.batch.b.output', 'is the output of a'),
    ("    gates:", "    batch: {nightly: {input: in.csv, output: out.csv, schedule: {cron: '0 6 * * *'}, keeps: [a]}}\n    gates:", 'models.wine.batch.nightly.keeps', 'Did you mean "keep"?'),
    ("    gates:", '    batch: {night ly: {input: in.csv, output: out.csv}}\n    gates:', 'models.wine.batch.night ly', 'letters, digits, _ and -'),
    ("new_category: answer", "new_category: refus", "models.wine.serving.new_category", 'Did you mean "refuse"?'),
    ("port: 8080", "log_sync: 0s", "server.log_sync", "'0s' is not allowed here. Allowed: a time with its unit: 50ms, 30s, 10min, 24h, 7d; 10ms to 60s"),
    ("port: 8080", "log_sync: 2min", "server.log_sync", "10ms to 60s"),
    ("new_category: answer", "log_sample: 2", "models.wine.serving.log_sample", "Allowed: a share: 0% to 100%"),
    ("new_category: answer", "durable: 1", "models.wine.serving.durable", "1 is not allowed here"),
    ("    gates:", "    output: {positive: 'yes'}\n    gates:", "models.wine.output.positive", "only a binary task has one"),
    ("    gates:", "    output: {threshold: 1.5}\n    gates:", "models.wine.output.threshold", "1.5 is not allowed here. Allowed: a number, 0 to 1."),
    ("version: 1", "version: 2", "version", "2 is not allowed here. Allowed: 1"),
    ("  wine:", "  'wi ne':", "models.wi ne", "letters, digits, _ and -"),
    ("  wine:", "  'wine\\n':", "models.wine", "letters, digits, _ and -"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "key", "said"), MISTAKES)
def test_a_mistake_names_its_line_its_key_and_what_is_allowed(
    read: Read, old: str, new: str, key: str, said: str
):
    with pytest.raises(ConfigError) as told:
        read(old, new)
    line = line_of(old)
    message = str(told.value)
    where, found = message.split("  ", 1)
    assert found.startswith(key)
    assert said in message
    assert message.endswith("Nothing was changed.")
    # The line of the changed text, or of the key around it that holds what is missing or contradicts.
    assert where.startswith("config/config.yaml:")
    assert abs(int(where.rpartition(":")[2]) - line) <= 1


LATER = [
    ("task: regression", "task: forecast", "This release knows regression, binary and multiclass."),

    ("data/winequality-red.csv", "exports/churn_*.csv", "Join them into one table"),
    ("data/winequality-red.csv", "s3://bucket/wine.csv", "Copy it into data/"),
    ("port: 8080", "port: 8080, host: 0.0.0.0", "Put a proxy in front"),
    ("    gates:", "    output: {probability: true}\n    gates:", "output.threshold"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "instead"), LATER)
def test_what_a_later_release_brings_is_refused_with_what_works_instead(
    read: Read, old: str, new: str, instead: str
):
    with pytest.raises(NotYetError) as told:
        read(old, new)
    assert "not there yet" in str(told.value)
    assert instead in str(told.value)
    assert str(told.value).startswith("config/config.yaml:")


NO_YAML = [
    ("version: 1\nmodels:\n\twine: 1\n", "config/config.yaml:3:1  This is no YAML: ", "'\\t'"),
    ("version: 1\nmodels: {wine: [\n", "config/config.yaml:3:1  This is no YAML: ", "flow node"),
    ("version: 1\nmodels: a: b\n", "config/config.yaml:2:10  This is no YAML: ", "mapping values are not allowed"),
    ("version: 1\n---\na: 1\n", "config/config.yaml:2:1  This is no YAML: ", "another document"),
    ("version: &a {b: *a}\n", "config/config.yaml:1  This is no YAML: ", "nests deeper"),
    ("a: " + "[" * 5000, "config/config.yaml  This is no YAML: ", "nests deeper"),
    ("version: !!python/object/apply:os.system [x]\n", "config/config.yaml:1  version: ", "is not allowed here"),
    ("version: !!python/name:os.system x\n", "config/config.yaml:1  This is no YAML: ", "is unknown; write the value alone"),
    ("version: .nan\n", "config/config.yaml:1  This is no YAML: ", ".nan is no number"),
    ("version: 1\n<<: {a: 1}\n", "config/config.yaml:2  This is no YAML: ", "write the keys out"),
    ("- a\n- b\n", "config/config.yaml:1  ", "keys are needed: version, models"),
    ("", "config/config.yaml  version: it is missing", "Allowed: 1."),
    ("version: 1\n", "config/config.yaml  models: at least one model is needed", ""),
    ("version: 1\nmodels:\n", "config/config.yaml:2  models: at least one model is needed", ""),
]  # fmt: skip


@pytest.mark.parametrize(("text", "start", "said"), NO_YAML)
def test_what_is_no_declaration_is_said_with_its_line_and_column(
    read: Read, text: str, start: str, said: str
):
    with pytest.raises(ConfigError) as told:
        read(text=text)
    assert str(told.value).startswith(start)
    assert said in str(told.value)
    assert str(told.value).endswith("Nothing was changed.")


def test_a_few_lines_that_stand_for_billions_of_values_end_at_once(read: Read):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    with pytest.raises(ConfigError, match="holds too much"):
        read(text="\n".join(lines))


def test_a_key_that_stands_twice_is_named_with_both_lines(read: Read):
    with pytest.raises(ConfigError) as told:
        read("      approval: first", "      approval: first\n      approval: never")
    line = line_of("      approval: first")
    assert f"config/config.yaml:{line + 1}  models.wine.rollout.approval" in str(told.value)
    assert f"in line {line} already" in str(told.value)


def test_a_file_in_another_encoding_names_the_line_of_the_first_odd_byte(read: Read):
    with pytest.raises(ConfigError) as told:
        read(text=DECLARATION.replace("target: quality", "target: 등급").encode("cp949"))
    assert f"config/config.yaml:{line_of('target: quality')}  This is not UTF-8" in str(told.value)


def test_a_mistake_in_an_overlay_names_the_overlay(read: Read):
    with pytest.raises(
        ConfigError, match=r'^config/prod.yaml:3  server.prot: .*Did you mean "port"'
    ):
        read(files={"prod.yaml": "\n\nserver: {prot: 1}\n"}, GYROSTAT_ENV="prod")


def test_every_default_is_one_that_the_grammar_itself_allows():
    def leaves(grammar: object, path: str) -> list[tuple[str, Value]]:
        if isinstance(grammar, Value):
            return [(path, grammar)]
        items = grammar.keys.items() if isinstance(grammar, Group) else [("*", grammar.item)]  # type: ignore[attr-defined]
        return [leaf for key, item in items for leaf in leaves(item, f"{path}.{key}")]

    found = leaves(GRAMMAR, "")
    assert len(found) > 50
    for path, value in found:
        if value.default is not None:
            value.read(value.default)  # raises if not
        assert value.help, path
        assert value.allowed, path


def test_the_followed_metrics_are_those_that_the_statistics_can_follow():
    from gyrostat.stats.losses import LOSS_OF

    assert set(FOLLOWED) == set(LOSS_OF)
