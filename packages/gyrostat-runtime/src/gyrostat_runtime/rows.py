"""From what a request says to the matrix a model sees: strict, typed, without pandas.

Every refusal is an `InputFault` with the JSON path of the fault in the body as it was sent. Nothing is guessed: digits
in quotes are no number, `true` is no 1, a name that is not in the schema is not ignored.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from decimal import Decimal
from itertools import chain
from math import nan
from typing import Any, Literal, NoReturn

import numpy as np

from gyrostat_runtime.errors import InputFault
from gyrostat_runtime.schema import Column, Schema

try:
    import msgspec

    _decode: Callable[[bytes], Any] | None = msgspec.json.Decoder().decode
except ImportError:  # on a device the standard library reads alone, with the same answers
    _decode = None

Missing = Literal["as_trained", "refuse"]
NewCategory = Literal["answer", "refuse"]

FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
LARGEST = 3.4028235e38
"""Beyond this a float32 is infinite, so a graph in 32 bits would answer something else without a word."""
_LARGEST_INTEGER = 2**63
_FEW = 16
"""Up to so many rows plain Python beats numpy's price of a call."""


class Rows:
    """Rows that a model can answer, in the order in which they were asked.

    Thread safety: made by one thread, then only read.
    """

    __slots__ = ("cat", "inputs", "missing", "n", "new", "num")

    def __init__(
        self,
        n: int,
        inputs: list[list[Any]],
        num: np.ndarray | None,
        cat: np.ndarray | None,
        new: dict[str, int],
        missing: dict[str, int],
    ) -> None:
        self.n = n
        self.inputs = inputs
        """Each row's JSON values in the order of `schema.inputs`; personal columns in the clear: hash before logging."""
        self.num = num
        """`(n, k)` float64, C order, NaN for missing; None where the model has no numeric feature."""
        self.cat = cat
        """`(n, m)` object of str, "" for missing; None where the model has no text feature."""
        self.new = new
        """Column to how many of its values training never had; columns without any are left out."""
        self.missing = missing
        """Column to how many values are missing; columns without any are left out."""

    def __len__(self) -> int:
        return self.n


def read_json(
    body: bytes,
    schema: Schema,
    *,
    missing: str = "as_trained",
    new_category: str = "answer",
) -> Rows:
    """Read MLflow's four forms: dataframe_split, dataframe_records, instances, inputs.

    `instances` and `inputs` may be records, rows in the order of the schema, or (`inputs`) columns by name.

    Args:
        missing: as_trained: a missing value is answered where training had some; refuse: never.
        new_category: answer (and count), or refuse.

    Raises:
        InputFault: the body cannot be answered; `.at` says where.
    """
    plan = _plan(schema)
    value, doubt = _parse(body)
    if plan.whole and doubt is None and (rows := _plain_instances(value, body, plan)) is not None:
        return rows
    if type(value) is not dict:
        _refuse("form", f"the body must be an object with one of {', '.join(FORMS)}", "$")
    forms = [name for name in value if name in FORMS]
    if len(value) != 1 or not forms:
        _wrong_forms(value, forms)
    form = forms[0]
    table = _FORMS[form](value[form], "$." + form, plan)
    return _finish(table, plan, body, value, doubt, missing, new_category)


def read_records(
    body: bytes,
    schema: Schema,
    *,
    missing: str = "as_trained",
    new_category: str = "answer",
) -> Rows:
    """Read the plain form: one record, or a list of records, without a name around it.

    Raises:
        InputFault: the body cannot be answered; `.at` says where.
    """
    plan = _plan(schema)
    value, doubt = _parse(body)
    if type(value) is dict:
        table = _records([value], "$", plan)
        table.at = lambda _, name: f"$.{_step(name)}"
    else:
        table = _records(value, "$", plan)
    table.pairs -= 1  # no form has a name here
    return _finish(table, plan, body, value, doubt, missing, new_category)


def from_columns(
    columns: Mapping[str, Sequence[Any]],
    schema: Schema,
    *,
    missing: str = "as_trained",
    new_category: str = "answer",
) -> Rows:
    """Rows from columns of a table, in the file's spelling: Python or numpy values, None or NaN for missing.

    Columns that the schema does not name (such as the target) are left aside.

    Raises:
        InputFault: a column is lacking, or a value is none that the schema allows; `.at` is `$.column[row]`.
    """
    plan = _plan(schema)
    table = _Table(0, [None] * len(plan.cells), lambda i, name: f"$.{_step(name)}[{i}]", 0)
    lengths = {len(columns[name]) for name in plan.index if name in columns}
    if len(lengths) > 1:
        _refuse("ragged", "the columns have different lengths", "$")
    table.n = lengths.pop() if lengths else 0
    for name, j in plan.index.items():
        if name in columns:
            kind = plan.cells[j].column.kind
            table.columns[j] = [_plain(v, kind) for v in columns[name]]
        elif plan.cells[j].is_feature:
            _lacking([name], "$")
    return _build(table, plan, missing, new_category)


def read_columns(
    columns: Mapping[str, Sequence[Any]],
    schema: Schema,
    *,
    at: Callable[[int, str], str],
    at_name: Callable[[str], str],
    missing: str = "as_trained",
    new_category: str = "answer",
) -> Rows:
    """Read JSON values that stand as columns by name in some other protocol's body, as strictly as `read_json`.

    Args:
        at: The path of a value in the body as it was sent, from its row and its column.
        at_name: The path of a column.

    Raises:
        InputFault: they cannot be answered; `.at` says where.
    """
    plan = _plan(schema)
    for name in columns:
        if name not in plan.index:
            _unknown(name, plan, at_name(name))
    lacking = [name for name in plan.names if name in plan.needed and name not in columns]
    if lacking:
        _lacking(lacking, "$")
    n = len(next(iter(columns.values()), ()))
    for name, values in columns.items():
        if len(values) != n:
            _refuse(
                "ragged",
                f"column {_shown(name)} has {len(values)} values, the first has {n}",
                at_name(name),
            )
    if not n:
        _no_rows("$")
    table = _Table(n, [columns.get(name) for name in plan.names], at, 0)
    return _build(table, plan, missing, new_category)


def parse_json(body: bytes) -> tuple[Any, Callable[[], None]]:
    """A JSON value, and what to call once its values were read: it refuses a key that stands twice, and NaN.

    Only afterwards, so that what is wrong with a value is said of the value, by its path.

    Raises:
        InputFault: the body is not JSON; the second part raises it too.
    """
    value, doubt = _parse(body)
    if doubt is None and body.count(b":") != _count_pairs(value):
        value, doubt = _parse_carefully(body.removeprefix(b"\xef\xbb\xbf"))

    def settle() -> None:
        if doubt is not None:
            _settle(value, doubt)

    return value, settle


def date_parts(text: str, format: str = "") -> tuple[float, float, float, float, float]:
    """A date's year, month, day, weekday (Monday is 0) and whole seconds since midnight.

    What names an offset from UTC is brought to UTC first. A `format` is tried before ISO 8601.

    Raises:
        ValueError: it is neither in the column's format nor in ISO 8601, or no such day exists.

    Example:
        >>> date_parts("2026-11-25T01:02:03")
        (2026.0, 11.0, 25.0, 2.0, 3723.0)
    """
    when = _moment(text, format)
    if when.tzinfo is not None:
        when = when.astimezone(UTC)
    seconds = when.hour * 3600 + when.minute * 60 + when.second
    return (
        float(when.year),
        float(when.month),
        float(when.day),
        float(when.weekday()),
        float(seconds),
    )


# ---- the schema, laid out for speed --------------------------------------------------------------


@dataclass(slots=True)
class _Cell:
    """What becomes of one input column."""

    column: Column
    is_personal: bool
    num: list[tuple[int, str]] = field(default_factory=list)
    """Places in the numeric matrix, with the part of a date that goes there."""
    cat: list[int] = field(default_factory=list)
    known: frozenset[str] = frozenset()
    spelled: dict[str, bool] = field(default_factory=dict)

    @property
    def is_feature(self) -> bool:
        return bool(self.num or self.cat)


@dataclass(slots=True)
class _Plan:
    schema: Schema
    cells: list[_Cell]
    names: list[str]
    index: dict[str, int]
    needed: frozenset[str]
    n_num: int
    n_cat: int
    whole: bool
    """Whether every input is a plain number and the matrix is just the inputs in their order."""
    colons: int
    """Colons in all column names together."""


_plans: OrderedDict[int, _Plan] = OrderedDict()


def _plan(schema: Schema) -> _Plan:
    # By identity: hashing a schema with a thousand categories costs more than reading a row. The plan keeps the
    # schema alive, so an id is never somebody else's.
    plan = _plans.get(id(schema))
    if plan is None:
        plan = _make_plan(schema)
        _plans[id(schema)] = plan
        while len(_plans) > 64:
            _plans.popitem(last=False)
    return plan


def _make_plan(schema: Schema) -> _Plan:
    cells = [
        _Cell(
            c,
            c.name in schema.personal,
            known=frozenset(c.categories) if c.kind == "category" else frozenset(),
            spelled=dict(zip(c.categories, (False, True), strict=False))
            if c.kind == "boolean"
            else {},
        )
        for c in schema.inputs
    ]
    names = [c.name for c in schema.inputs]
    index = {name: j for j, name in enumerate(names)}
    n_num = n_cat = 0
    for feature in schema.features:
        cell = cells[index[feature.column]]
        if cell.column.kind == "category":
            cell.cat.append(n_cat)
            n_cat += 1
        else:
            cell.num.append((n_num, feature.part))
            n_num += 1
    whole = all(c.column.kind == "number" and c.num == [(j, "")] for j, c in enumerate(cells))
    return _Plan(
        schema,
        cells,
        names,
        index,
        frozenset(c.column.name for c in cells if c.is_feature),
        n_num,
        n_cat,
        whole and n_num == len(cells),
        sum(name.count(":") for name in names),
    )


# ---- JSON ----------------------------------------------------------------------------------------


class _NotJson:
    """Stands where NaN or Infinity stood, which JSON does not have."""

    __slots__ = ("word",)

    def __init__(self, word: str) -> None:
        self.word = word


@dataclass(slots=True)
class _Doubt:
    """What the careful reader found wrong that has a place in the body."""

    words: list[str] = field(default_factory=list)
    twice: list[tuple[dict[str, Any], str]] = field(default_factory=list)


def _parse(body: bytes) -> tuple[Any, _Doubt | None]:
    """The value; a doubt where the careful reader read it, None where the quick one did."""
    if body[:3] == b"\xef\xbb\xbf":
        body = body[3:]
    if _decode is not None:
        try:
            return _decode(body), None
        except RecursionError:
            _refuse("not_json", "the body is nested too deeply to be a request", "$")
        except ValueError:
            # Slower, but it can say where, and tells 1e400 from a comma too many.
            pass
    return _parse_carefully(body)


def _parse_carefully(body: bytes) -> tuple[Any, _Doubt]:
    doubt = _Doubt()

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(items)
        if len(made) != len(items):
            seen: set[str] = set()
            name = next(k for k, _ in items if k in seen or seen.add(k))  # type: ignore[func-returns-value]
            doubt.twice.append((made, name))
        return made

    def constant(word: str) -> _NotJson:
        doubt.words.append(word)
        return _NotJson(word)

    def integer(digits: str) -> int | float:
        # Python refuses more than 4,300 digits, and needs long for fewer.
        return int(digits) if len(digits) < 400 else float(digits)

    try:
        value = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=pairs,
            parse_constant=constant,
            parse_int=integer,
        )
    except UnicodeDecodeError as error:
        _refuse("not_json", f"the body is not UTF-8 (byte {error.start})", "$")
    except RecursionError:
        _refuse("not_json", "the body is nested too deeply to be a request", "$")
    except ValueError as error:
        where = f" (character {error.pos})" if isinstance(error, json.JSONDecodeError) else ""
        what = error.msg if isinstance(error, json.JSONDecodeError) else "a value cannot be read"
        _refuse("not_json", f"the body is not JSON: {what}{where}", "$")
    return value, doubt


def _settle(value: Any, doubt: _Doubt) -> None:
    """Refuse what is wrong with the body as JSON and was not yet refused as a value."""
    if doubt.twice:
        holder, name = doubt.twice[0]
        at = _where(value, holder, "$") or "$"
        _refuse("duplicate_column", f"{_shown(name)} stands twice in one object", at)
    if doubt.words:
        _refuse("not_json", f"{doubt.words[0]} is not JSON; a missing value is null", "$")


def _where(value: Any, wanted: Any, at: str, depth: int = 0) -> str:
    if value is wanted:
        return at
    if depth < 3:
        steps = (
            ((f"{at}.{_step(k)}", v) for k, v in value.items())
            if isinstance(value, dict)
            else ((f"{at}[{i}]", v) for i, v in enumerate(value))
            if isinstance(value, list)
            else ()
        )
        for path, inner in steps:
            if found := _where(inner, wanted, path, depth + 1):
                return found
    return ""


def _count_pairs(value: Any) -> int:
    n, left = 0, [value]
    while left:
        one = left.pop()
        if type(one) is dict:
            n += len(one)
            left += [v for v in one.values() if type(v) in (dict, list)]
        elif type(one) is list:
            left += [v for v in one if type(v) in (dict, list)]
    return n


def _has_twice(body: bytes, table: _Table, plan: _Plan) -> bool:
    """Whether a key may stand twice: the quick reader keeps the last in silence.

    Every pair has its colon, so more colons than pairs mean a lost pair or a colon in a text; the latter are counted.
    """
    extra = body.count(b":") - table.pairs
    if extra == 0:
        return False
    return b"\\" in body or extra != table.colons(plan)


# ---- forms ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Table:
    """Columns in the order of the schema's inputs, and where in the body each cell stood."""

    n: int
    sent: list[Any] | None
    """Columns as `columns`; None: `rows` has them, and most often nobody asks."""
    at: Callable[[int, str], str]
    pairs: int
    """Key-value pairs in the body, the form's own among them."""
    rows: list[list[Any]] | None = None
    """The rows themselves, where the body held them in the schema's order."""
    named: int = 0
    """How often each column name stands as a key."""

    @property
    def columns(self) -> list[Any]:
        """A sequence of values for each input; None for one that was left out."""
        if self.sent is None:
            self.sent = list(zip(*(self.rows or []), strict=True))
        return self.sent

    def colons(self, plan: _Plan) -> int:
        texts = chain.from_iterable(
            column
            for column, cell in zip(self.columns, plan.cells, strict=True)
            if column is not None and cell.column.kind not in ("number", "integer")
        )
        in_names = sum(
            name.count(":")
            for name, column in zip(plan.names, self.columns, strict=True)
            if column is not None
        )
        return self.named * in_names + sum(v.count(":") for v in texts if type(v) is str)


def _split(value: Any, at: str, plan: _Plan) -> _Table:
    if type(value) is not dict:
        _refuse("form", "dataframe_split must be an object with columns and data", at)
    for key in value:
        if key not in ("columns", "data", "index"):
            _refuse(
                "form", f"dataframe_split has no {_shown(key)}; it has columns, data, index", at
            )
    for key in ("columns", "data"):
        if type(value.get(key)) is not list:
            _refuse("form", f"dataframe_split needs a list {key!r}", f"{at}.{key}")
    names, data = value["columns"], value["data"]
    # A colon in the index would look like a key that was lost; counting it would cost more than reading again.
    table = _table_of_rows(data, f"{at}.data", names, plan, lambda j: f"{at}.columns[{j}]", at)
    table.pairs = 1 + len(value)
    table.named = 1
    return table


def _records(value: Any, at: str, plan: _Plan) -> _Table:
    if type(value) is not list:
        _refuse("form", "records must be a list of objects", at)
    n = len(value)
    if not n:
        _no_rows(at)
    first = value[0]
    if type(first) is not dict:
        _refuse("wrong_type", f"a record must be an object, not {_kind_of(first)}", f"{at}[0]")
    names = plan.names
    keys = first.keys()
    if keys != plan.index.keys():
        _check_names(first, f"{at}[0]", plan)
        names = [name for name in names if name in keys]
    width = len(names)
    columns: list[Any] = []
    try:
        columns = [
            [record[name] for record in value] if name in keys else None for name in plan.names
        ]
        same = all(type(r) is dict and len(r) == width for r in value)
    except (KeyError, TypeError, IndexError):
        same = False
    if not same:
        for i, record in enumerate(value):
            if type(record) is not dict:
                _refuse(
                    "wrong_type",
                    f"a record must be an object, not {_kind_of(record)}",
                    f"{at}[{i}]",
                )
            _check_names(record, f"{at}[{i}]", plan)
        # Columns that the model does not need may stand in some records alone.
        columns = [[record.get(name) for record in value] for name in plan.names]
    pairs = 1 + sum(map(len, value))
    return _Table(
        n, columns, lambda i, name: f"{at}[{i}].{_step(name)}", pairs, None, n if same else -1
    )


def _instances(value: Any, at: str, plan: _Plan) -> _Table:
    if type(value) is list and value and type(value[0]) is not dict:
        if type(value[0]) is not list and len(plan.cells) == 1:
            # One input: MLflow's clients send its values bare.
            return _Table(len(value), [value], lambda i, _: f"{at}[{i}]", 1)
        return _table_of_rows(value, at, plan.names, plan, lambda _: at, at)
    return _records(value, at, plan)


def _inputs(value: Any, at: str, plan: _Plan) -> _Table:
    if type(value) is not dict:
        return _instances(value, at, plan)
    _check_names(value, at, plan)
    n: int | None = None
    for name, column in value.items():
        if type(column) is not list:
            _refuse(
                "wrong_type",
                f"column {_shown(name)} must be a list of values, not {_kind_of(column)}",
                f"{at}.{_step(name)}",
            )
        if n is not None and len(column) != n:
            _refuse(
                "ragged",
                f"column {_shown(name)} has {len(column)} values, the first has {n}",
                f"{at}.{_step(name)}",
            )
        n = len(column)
    if not n:
        _no_rows(at)
    return _Table(
        n,
        [value.get(name) for name in plan.names],
        lambda i, name: f"{at}.{_step(name)}[{i}]",
        1 + len(value),
        None,
        1,
    )


_FORMS: dict[str, Callable[[Any, str, _Plan], _Table]] = {
    "dataframe_split": _split,
    "dataframe_records": _records,
    "instances": _instances,
    "inputs": _inputs,
}


def _table_of_rows(
    data: list[Any],
    at: str,
    names: list[Any],
    plan: _Plan,
    at_name: Callable[[int], str],
    at_all: str,
) -> _Table:
    in_order = names == plan.names
    if not in_order:
        seen: set[str] = set()
        for j, name in enumerate(names):
            if type(name) is not str:
                _refuse("wrong_type", f"a column name is text, not {_kind_of(name)}", at_name(j))
            if name in seen:
                _refuse("duplicate_column", f"column {_shown(name)} stands twice", at_name(j))
            if name not in plan.index:
                _unknown(name, plan, at_name(j))
            seen.add(name)
        lacking = [name for name in plan.names if name in plan.needed and name not in seen]
        if lacking:
            _lacking(lacking, at_all)
    if not data:
        _no_rows(at)
    width = len(names)
    for i, row in enumerate(data):
        if type(row) is not list:
            _refuse("wrong_type", f"a row must be a list, not {_kind_of(row)}", f"{at}[{i}]")
        if len(row) != width:
            _refuse("ragged", f"a row must have {width} values, this has {len(row)}", f"{at}[{i}]")
    if in_order:
        return _Table(
            len(data), None, lambda i, name: f"{at}[{i}][{plan.index[name]}]", 1, rows=data
        )
    # No columns at all (every input can be left out): rows of nothing.
    sent: list[Any] = list(zip(*data, strict=True))
    place = {name: j for j, name in enumerate(names)}
    columns = [sent[place[name]] if name in place else None for name in plan.names]
    return _Table(len(data), columns, lambda i, name: f"{at}[{i}][{place[name]}]", 1)


def _check_names(record: Mapping[str, Any], at: str, plan: _Plan) -> None:
    for name in record:
        if name not in plan.index:
            _unknown(name, plan, at)
    lacking = [name for name in plan.names if name in plan.needed and name not in record]
    if lacking:
        _lacking(lacking, at)


# ---- from columns to matrices --------------------------------------------------------------------


class _Bad(Exception):
    """A value that cannot be answered, before its place in the body is known."""

    def __init__(self, row: int, code: str, why: str) -> None:
        super().__init__()
        self.row, self.code, self.why = row, code, why


def _finish(
    table: _Table,
    plan: _Plan,
    body: bytes,
    value: Any,
    doubt: _Doubt | None,
    missing: str,
    new_category: str,
) -> Rows:
    if doubt is None and _has_twice(body, table, plan):
        value, doubt = _parse_carefully(body.removeprefix(b"\xef\xbb\xbf"))
    rows = _build(table, plan, missing, new_category)
    if doubt is not None:
        _settle(value, doubt)
    return rows


def _build(table: _Table, plan: _Plan, missing: str, new_category: str) -> Rows:
    n = table.n
    if plan.whole and table.rows is not None:
        num = _whole_matrix(table.rows) if n > _FEW else _few_rows(table.rows)
        if num is not None:
            return Rows(n, table.rows, num, None, {}, {})
    news: dict[str, int] = {}
    gone: dict[str, int] = {}
    numeric: list[Any] = [None] * plan.n_num
    text: list[Any] = [None] * plan.n_cat
    for cell, values in zip(plan.cells, table.columns, strict=True):
        if values is None:
            continue
        column = cell.column
        try:
            made, n_missing, n_new = _READ[column.kind](values, cell)
            if n_missing:
                _allow_missing(cell, values, missing)
                gone[column.name] = n_missing
            if n_new:
                _allow_new(cell, values, new_category)
                news[column.name] = n_new
        except _Bad as bad:
            raise InputFault(
                f"{_shown(column.name)}: {bad.why}",
                code=f"serving.{bad.code}",
                at=table.at(bad.row, column.name),
            ) from None
        if column.kind == "date":
            for place, part in cell.num:
                numeric[place] = made[_PARTS[part]]
        else:
            for place, _ in cell.num:
                numeric[place] = made
            for place in cell.cat:
                text[place] = made
    return Rows(n, _logged(table, plan), _numbers(numeric, n), _texts(text, n), news, gone)


def _allow_missing(cell: _Cell, values: Sequence[Any], missing: str) -> None:
    if cell.is_feature and (missing == "refuse" or not cell.column.nullable):
        row = next(i for i, v in enumerate(values) if v is None or v == "")
        raise _Bad(row, "missing_value", _no_missing(cell.column))


def _allow_new(cell: _Cell, values: Sequence[Any], new_category: str) -> None:
    if new_category == "refuse":
        row = next(i for i, v in enumerate(values) if v and v not in cell.known)
        raise _Bad(row, "new_category", "a value that training never had is refused here")


def _numbers(columns: list[Any], n: int) -> np.ndarray | None:
    if not columns:
        return None
    if n == 1:
        return np.array([[c[0] for c in columns]], dtype=np.float64)
    out = np.empty((n, len(columns)))
    for j, column in enumerate(columns):
        out[:, j] = column
    return out


def _texts(columns: list[Any], n: int) -> np.ndarray | None:
    if not columns:
        return None
    out = np.empty((n, len(columns)), dtype=object)
    for j, column in enumerate(columns):
        out[:, j] = column
    return out


def _logged(table: _Table, plan: _Plan) -> list[list[Any]]:
    if table.rows is not None:
        return table.rows
    empty = [None] * table.n
    columns = [empty if c is None else c for c in table.columns]
    return [list(row) for row in zip(*columns, strict=True)] if plan.cells else [[]] * table.n


def _plain_instances(value: Any, body: bytes, plan: _Plan) -> Rows | None:
    """The commonest request, numbers in the schema's order, as directly as can be; None for all that is not just that."""
    if type(value) is not dict or len(value) != 1 or body.count(b":") != 1:
        return None
    rows, width = value.get("instances"), len(plan.cells)
    if type(rows) is not list or not rows:
        return None
    for row in rows:
        if type(row) is not list or len(row) != width:
            return None
    num = _whole_matrix(rows) if len(rows) > _FEW else _few_rows(rows)
    return None if num is None else Rows(len(rows), rows, num, None, {}, {})


def _whole_matrix(rows: list[list[Any]]) -> np.ndarray | None:
    """All rows at once where every cell is a plain number in range; else None, and the slow way finds out."""
    if not {*map(type, chain.from_iterable(rows))} <= _PLAIN:
        return None
    try:
        num = np.array(rows, dtype=np.float64)
    except OverflowError:
        return None
    return num if num.min() >= -LARGEST and num.max() <= LARGEST else None


def _few_rows(rows: list[list[Any]]) -> np.ndarray | None:
    """The same for so few rows that asking numpy costs more than the asking."""
    for row in rows:
        if not row or not {*map(type, row)} <= _PLAIN or min(row) < -LARGEST or max(row) > LARGEST:
            return None
    return np.array(rows, dtype=np.float64)


_PLAIN = {int, float}
_NUMERIC = {int, float, type(None)}


def _read_number(values: Sequence[Any], cell: _Cell) -> tuple[Any, int, int]:
    if len(values) > _FEW and {*map(type, values)} <= _NUMERIC:
        try:
            made = np.array(values, dtype=np.float64)
        except OverflowError:
            pass
        else:
            gone = np.isnan(made)
            n_missing = int(np.count_nonzero(gone))
            if bool(np.all(gone | (np.abs(made) <= LARGEST))):
                return made, n_missing, 0
    out, n_missing = [], 0
    for i, v in enumerate(values):
        kind = type(v)
        if kind is float or kind is int:
            if not -LARGEST <= v <= LARGEST:
                raise _Bad(
                    i, "out_of_range", f"beyond ±{LARGEST:g}, the largest a 32-bit number holds"
                )
            out.append(v)
        elif v is None:
            n_missing += 1
            out.append(nan)
        else:
            raise _Bad(i, "wrong_type", f"a number is needed, got {_got(v, cell)}")
    return out, n_missing, 0


def _read_integer(values: Sequence[Any], cell: _Cell) -> tuple[Any, int, int]:
    if len(values) > _FEW and {*map(type, values)} <= {int, type(None)}:
        try:
            made = np.array(values, dtype=np.float64)
        except OverflowError:
            pass
        else:
            gone = np.isnan(made)
            if bool(np.all(gone | (np.abs(made) < _LARGEST_INTEGER))):
                return made, int(np.count_nonzero(gone)), 0
    out, n_missing = [], 0
    for i, v in enumerate(values):
        kind = type(v)
        if kind is int or kind is float:
            if not -_LARGEST_INTEGER <= v < _LARGEST_INTEGER:
                raise _Bad(i, "out_of_range", "beyond a whole number of 64 bits")
            if kind is float and not v.is_integer():
                raise _Bad(i, "wrong_type", "a whole number is needed, this has a fraction")
            out.append(v)
        elif v is None:
            n_missing += 1
            out.append(nan)
        else:
            raise _Bad(i, "wrong_type", f"a whole number is needed, got {_got(v, cell)}")
    return out, n_missing, 0


def _read_boolean(values: Sequence[Any], cell: _Cell) -> tuple[Any, int, int]:
    out, n_missing = [], 0
    for i, v in enumerate(values):
        if v is True:
            out.append(1.0)
        elif v is False:
            out.append(0.0)
        elif v is None:
            n_missing += 1
            out.append(nan)
        elif type(v) is str and v in cell.spelled:
            out.append(1.0 if cell.spelled[v] else 0.0)
        else:
            allowed = "".join(f" or {_shown(word)}" for word in cell.spelled)
            raise _Bad(i, "wrong_type", f"true or false{allowed} is needed, got {_got(v, cell)}")
    return out, n_missing, 0


def _read_category(values: Sequence[Any], cell: _Cell) -> tuple[Any, int, int]:
    known = cell.known
    out, n_missing, n_new = [], 0, 0
    for i, v in enumerate(values):
        if type(v) is str:
            if v in known:
                out.append(v)
                continue
            # A file cannot tell empty text from missing, so neither does training.
            if not v:
                n_missing += 1
            else:
                if known:
                    n_new += 1
                _check_text(i, v)
            out.append(v)
        elif v is None:
            n_missing += 1
            out.append("")
        else:
            raise _Bad(i, "wrong_type", f"text is needed, got {_got(v, cell)}")
    return out, n_missing, n_new


def _read_date(values: Sequence[Any], cell: _Cell) -> tuple[Any, int, int]:
    n_missing, out = 0, []
    for i, v in enumerate(values):
        if v is None or (type(v) is str and not v):
            n_missing += 1
            out.append((nan, nan, nan, nan, nan))
            continue
        if type(v) is not str:
            raise _Bad(i, "wrong_type", f"a date as text is needed, got {_got(v, cell)}")
        _check_text(i, v)
        try:
            out.append(date_parts(v, cell.column.format))
        except (ValueError, OverflowError):
            form = f"in the form {_shown(cell.column.format)} or " if cell.column.format else "in "
            raise _Bad(i, "wrong_value", f"a date {form}ISO 8601 is needed") from None
    return list(zip(*out, strict=True)) if out else [[]] * len(_PARTS), n_missing, 0


_PARTS = {"year": 0, "month": 1, "day": 2, "weekday": 3, "seconds": 4}

_READ: dict[str, Callable[[Sequence[Any], _Cell], tuple[Any, int, int]]] = {
    "number": _read_number,
    "integer": _read_integer,
    "boolean": _read_boolean,
    "category": _read_category,
    "date": _read_date,
}


def _check_text(row: int, text: str) -> None:
    if "\x00" in text:
        raise _Bad(row, "wrong_value", "text with a NUL character cannot be a value")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _Bad(row, "wrong_value", "half a surrogate pair is not text") from None


def _moment(text: str, format: str) -> datetime:
    if format:
        try:
            return datetime.strptime(text, format)  # noqa: DTZ007
        except ValueError:
            pass
    return datetime.fromisoformat(text.strip())


def _plain(value: Any, kind: str) -> Any:
    """A table's value as JSON would spell it."""
    if value is None:
        return None
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, float) and value != value:
        return None
    if isinstance(value, Decimal):
        value = float(value)
    if kind == "category":
        return value if value is None or isinstance(value, str) else str(value)
    if isinstance(value, str) and kind in ("number", "integer"):
        try:
            return None if not value.strip() else int(value) if kind == "integer" else float(value)
        except ValueError:
            return value
    if isinstance(value, str) and kind == "boolean":
        return {"true": True, "false": False, "": None}.get(value.lower(), value)
    return value


# ---- refusals ------------------------------------------------------------------------------------


def _refuse(code: str, message: str, at: str) -> NoReturn:
    raise InputFault(message, code=f"serving.{code}", at=at)


def _wrong_forms(value: dict[str, Any], forms: list[str]) -> NoReturn:
    if len(forms) > 1:
        _refuse("form", f"{' and '.join(forms)} in one body contradict each other; send one", "$")
    others = [name for name in value if name not in FORMS]
    if not others:
        _refuse("form", f"the body must have one of {', '.join(FORMS)}", "$")
    _refuse(
        "form",
        f"the body has {_shown(others[0])}, which is none of {', '.join(FORMS)}",
        f"$.{_step(others[0])}",
    )


def _no_rows(at: str) -> NoReturn:
    _refuse("no_rows", "there is no row to answer", at)


def _unknown(name: str, plan: _Plan, at: str) -> NoReturn:
    from difflib import get_close_matches

    near = get_close_matches(name[:100], plan.names, 1, 0.5) or get_close_matches(
        name[:100].lower(), plan.names, 1
    )
    hint = f" (is {_shown(near[0])} meant?)" if near else ""
    known = ", ".join(_shown(n) for n in plan.names[:20]) + (", …" if len(plan.names) > 20 else "")
    _refuse("unknown_column", f"the model has no column {_shown(name)}{hint}; it has {known}", at)


def _lacking(names: list[str], at: str) -> NoReturn:
    shown = ", ".join(_shown(name) for name in names[:20]) + (", …" if len(names) > 20 else "")
    _refuse("missing_column", f"lacking: {shown}; a missing value is sent as null", at)


def _no_missing(column: Column) -> str:
    if column.nullable:
        return "a missing value is refused here (serving.missing)"
    return "a missing value cannot be answered, training had none here"


def _got(value: Any, cell: _Cell) -> str:
    """What was sent: the value itself only where it is short and nobody's own."""
    kind = _kind_of(value)
    if cell.is_personal or type(value) not in (str, int, float):
        return kind
    if type(value) is not str:
        return f"the number {value:g}" if abs(value) < LARGEST else kind
    return (
        f'the text "{_printable(value)}"'
        if len(value) <= 40
        else f"a text of {len(value)} characters"
    )


def _kind_of(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case str():
            return "text"
        case int() | float():
            return "a number"
        case list() | tuple():
            return "a list"
        case dict():
            return "an object"
        case _NotJson():
            return f"{value.word}, which is not JSON; a missing value is null"
    return type(value).__name__


def _shown(text: str) -> str:
    cut = text if len(text) <= 80 else text[:79] + "…"
    return f"'{_printable(cut)}'"


def _step(name: str) -> str:
    """A name as a step of a JSON path, in a form that can be printed."""
    return _printable(name if len(name) <= 80 else name[:79] + "…")


def _printable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
