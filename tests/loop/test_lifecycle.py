"""docs/lifecycle.md says what the code does: its tables are the code's tables."""

import re
from pathlib import Path

import pytest

from gyrostat.ledger import entries
from gyrostat.loop.reconcile import LIVES

TEXT = (Path(__file__).parents[2] / "docs" / "lifecycle.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """The cells of the table under a heading that starts so."""
    section = re.split(r"^## ", TEXT.partition(f"\n## {heading}")[2], flags=re.MULTILINE)[0]
    table = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


@pytest.mark.parametrize("name", LIVES)
def test_the_table_of_each_life_is_its_transitions(name):
    told, life = [], LIVES[name]
    for states, kind, to, when in rows(f"`{name}/"):
        told += [(state, kind.strip("`"), to) for state in states.split(", ")]
        assert when
    assert len(told) == len(set(told))
    names = {None: "stays"}
    assert set(told) == {
        (str(state), kind, "again" if to is state else names.get(to, str(to)))
        for (state, kind), to in life.TRANSITIONS.items()
    }


def test_every_event_is_listed_with_the_fields_of_its_body():
    told = {}
    for stream, kind, body, by in rows("Events"):
        told[stream, kind.strip("`")] = [
            re.sub(r" \(.*\)", "", field) for field in body.split(", ")
        ]
        assert by
    known = {
        (stream, kind): [
            name if is_required else f"[{name}]"
            for name, _, _, is_required in entries._FIELDS[body]
        ]
        for stream, kinds in entries.KINDS.items()
        for kind, body in kinds.items()
        if not issubclass(body, entries.Step)
    }
    assert told == known
    assert len(told) == 22


def test_a_steps_body_is_told():
    step = [
        name if is_required else f"[{name}]"
        for name, _, _, is_required in entries._FIELDS[entries.Step]
    ]
    assert f"the same for all: {', '.join(step)}." in TEXT.replace("\n", " ")


def test_whatever_a_state_looks_at_is_told():
    asked = {what for row in rows("What `look` answers") for what in re.findall(r"`(\w+)`", row[0])}
    looked = {
        life.subject(life.Facts("run/m/1", state=state))[0]
        for life in LIVES.values()
        for state, _ in life.TRANSITIONS
    }
    assert asked == looked
