"""What was done to the record is named: the first entry, what happened to it, and what only a head kept elsewhere can show."""

from __future__ import annotations

import tracemalloc

import pytest

from gyrostat.ledger import audit
from gyrostat.ledger.audit import Anchor, digest
from gyrostat.ledger.chain import verify as verify_entries
from gyrostat.ledger.sqlite import SqliteLedger, sqlite3
from gyrostat.terms import GENESIS, Draft

N = 40
COLUMNS = ("position", "stream", "seq", "fence", "kind", "at", "actor", "inputs", "outputs", "body", "key", "prev", "hash")  # fmt: skip


class Record:
    """A ledger, and somebody who can write in its file."""

    def __init__(self, path, n=N):
        self.path = path
        ledger = SqliteLedger(path)
        for i in range(n):
            draft = Draft("said", 0.0, "kim", (f"in/{i}",), ("out ü",) if i % 3 else (), {"i": i, "x": i / 7, "ü": "é"}, f"k{i}")  # fmt: skip
            ledger.append(f"s/{i % 4}", draft, expect_seq=None, fence=None)
        ledger.close()
        self.honest = self.rows()

    def rows(self):
        with sqlite3.connect(self.path) as db:
            found = db.execute("SELECT * FROM entries ORDER BY position").fetchall()
        db.close()
        return found

    def write(self, rows):
        """Instead of what is there."""
        with sqlite3.connect(self.path) as db:
            db.executescript("DROP TRIGGER IF EXISTS no_update; DROP TRIGGER IF EXISTS no_delete; DROP INDEX IF EXISTS event_keys;"
                             "DELETE FROM entries;")  # fmt: skip
            # without the table's own constraints, as a forger has them not
            db.execute("CREATE TABLE IF NOT EXISTS forged AS SELECT * FROM entries")
            db.executemany(f"INSERT INTO forged VALUES({','.join('?' * 13)})", rows)
            db.execute("DROP TABLE entries")
            db.execute("ALTER TABLE forged RENAME TO entries")
        db.close()

    def audit(self, *anchors):
        ledger = SqliteLedger(self.path)
        try:
            report = audit.verify(ledger.rows(), anchors, row_at=ledger.row, search=ledger.rows)
            if (
                not anchors and report.is_whole
            ):  # nothing passes here that the entries' own check finds
                assert verify_entries(ledger.entries()) is None
            return report
        finally:
            ledger.close()

    def anchor(self, position, digest=""):
        return Anchor(position, digest or self.honest[position - 1][12], 0.0, "the other disk")


@pytest.fixture
def record(tmp_path):
    """An honest one."""
    return Record(tmp_path / "ledger.db")


def put(row, **changes):
    return tuple(changes.get(name, value) for name, value in zip(COLUMNS, row, strict=True))


def numbered(rows):
    """Positions without a gap again, as a careful forger leaves them."""
    return [put(row, position=n) for n, row in enumerate(rows, 1)]


def sealed(rows, start=0):
    """Hashed anew from `start` on: the whole chain holds."""
    found = list(rows[:start])
    for n, row in enumerate(rows[start:], start + 1):
        row = put(row, position=n, prev=found[-1][12] if found else GENESIS)
        found.append(put(row, hash=digest(row)))
    return found


def test_an_honest_record_is_whole(record):
    report = record.audit()
    assert (report.is_whole, report.n_entries, report.head) == (True, N, record.honest[-1][12])


CHANGES = {
    "stream": "s/9", "seq": 99, "fence": 7, "kind": "other", "at": 1.0, "actor": "eve", "inputs": '["in/9"]', "outputs": '["x"]',
    "body": '{"i":99}', "key": "other", "prev": "0" * 64, "hash": "f" * 64,
}  # fmt: skip


@pytest.mark.parametrize("field", CHANGES)
@pytest.mark.parametrize("at", [1, 7, N])
def test_a_change_of_any_field_names_its_entry(record, field, at):
    rows = list(record.honest)
    value = "a" * 64 if field == "prev" and at == 1 else CHANGES[field]
    rows[at - 1] = put(rows[at - 1], **{field: value})
    record.write(rows)
    report = record.audit()
    assert (report.first_bad, report.what) == (at, "changed")
    assert report.n_entries == at - 1


def test_a_body_that_says_the_same_in_other_bytes_is_another(record):
    rows = list(record.honest)
    rows[6] = put(rows[6], body=rows[6][9].replace(":", ": ", 1))
    record.write(rows)
    assert audit_first(record) == (7, "changed")


def audit_first(record, *anchors):
    report = record.audit(*anchors)
    return report.first_bad, report.what


def test_an_entry_that_was_changed_and_sealed_anew_is_given_away_by_the_next(record):
    rows = list(record.honest)
    rows[6] = put(rows[6], actor="eve")
    rows[6] = put(rows[6], hash=digest(rows[6]))
    record.write(rows)
    assert audit_first(record) == (7, "changed")


@pytest.mark.parametrize("renumber", [False, True])
@pytest.mark.parametrize(("first", "n"), [(1, 1), (7, 1), (7, 3), (N - 1, 1)])
def test_entries_that_were_dropped(record, renumber, first, n):
    rows = [*record.honest[: first - 1], *record.honest[first - 1 + n :]]
    record.write(numbered(rows) if renumber else rows)
    assert audit_first(record) == (first, "dropped")


def test_an_entry_that_was_inserted(record):
    forged = put(record.honest[5], actor="eve", key="new", prev=record.honest[5][12])
    rows = numbered([*record.honest[:6], put(forged, position=7), *record.honest[6:]])
    record.write(rows)
    assert audit_first(record) == (7, "inserted")


def test_an_inserted_entry_with_a_hash_that_fits_is_found_all_the_same(record):
    forged = put(record.honest[5], position=7, actor="eve", key="new", prev=record.honest[5][12])
    forged = put(forged, hash=digest(forged))
    record.write(numbered([*record.honest[:6], forged, *record.honest[6:]]))
    report = record.audit()
    assert not report.is_whole
    assert report.first_bad in (7, 8)


@pytest.mark.parametrize(("old", "new"), [(7, 8), (7, 20), (20, 7), (3, N)])
def test_an_entry_that_was_moved(record, old, new):
    rows = list(record.honest)
    rows.insert(new - 1, rows.pop(old - 1))
    record.write(numbered(rows))
    first, what = audit_first(record)
    assert first == min(old, new)
    assert what in (
        "moved",
        "dropped",
    )  # from where it stood, an entry carried away is one that is missing


def test_two_that_changed_places_are_moved(record):
    rows = list(record.honest)
    rows[6], rows[7] = rows[7], rows[6]
    record.write(numbered(rows))
    assert audit_first(record) == (7, "moved")


@pytest.mark.parametrize("odd", ["not json", "[1", 'null', "[" * 100_000, 5, None, b"\x80"])  # fmt: skip
def test_what_cannot_be_read_is_changed_and_stops_nobody(record, odd):
    rows = list(record.honest)
    rows[6] = put(rows[6], inputs=odd)
    record.write(rows)
    ledger = SqliteLedger(record.path)
    report = audit.verify(ledger.rows(), row_at=ledger.row, search=ledger.rows)
    ledger.close()
    assert (report.first_bad, report.what) == (7, "changed")


# ---- what only an anchor shows


def test_a_cut_end_is_shown_by_an_anchor_alone(record):
    record.write(record.honest[:30])
    assert record.audit().is_whole
    assert record.audit(record.anchor(29)).is_whole
    report = record.audit(record.anchor(10), record.anchor(35))
    assert (report.first_bad, report.what, report.n_entries) == (31, "cut", 30)
    assert "entry/35" in report.why


def test_a_record_written_anew_is_shown_by_an_anchor_alone(record):
    rows = list(record.honest)
    rows[14] = put(rows[14], actor="eve")
    record.write(sealed(rows, start=14))
    assert record.audit().is_whole
    assert record.audit(record.anchor(14)).is_whole
    report = record.audit(record.anchor(10), record.anchor(20), record.anchor(30))
    assert (report.what, report.first_bad) == ("rewritten", 11)  # from the last head that agrees
    assert "entry/20" in report.why


def test_all_of_it_written_anew_names_the_first(record):
    record.write(sealed([put(row, actor="eve") for row in record.honest]))
    assert record.audit().is_whole
    assert audit_first(record, record.anchor(5)) == (1, "rewritten")


def test_anchors_that_agree_say_how_far_they_vouch(record):
    report = record.audit(record.anchor(10), record.anchor(10), record.anchor(33))
    assert (report.is_whole, report.n_anchored, report.anchored_to) == (True, 3, 33)


def restored(record, *, after=30, says=None):
    """Cut behind `after`, and going on with an entry that says it was restored."""
    record.write(record.honest[:after])
    ledger = SqliteLedger(record.path)
    body = {"after": after if says is None else says, "made_at": 5.0, "file": "wine.zip", "epoch": 2, "signed_by": "k", "actor": "kim"}  # fmt: skip
    for kind in ("restored", "said", "said"):
        draft = Draft(kind, 0.0, "kim", body=body, key=kind + str(ledger.position()))
        found = ledger.append("project" if kind == "restored" else "s/1", draft, expect_seq=None, fence=None)  # fmt: skip
    ledger.close()
    return found.at


def test_a_restore_explains_the_heads_of_the_time_that_was_lost_and_is_always_said(record):
    restored(record)
    heads = [record.anchor(n) for n in (10, 30, 31, 32, 40)]
    report = record.audit(*heads)
    assert (report.is_whole, report.n_anchored, report.anchored_to) == (True, 2, 30)
    assert report.lost == tuple(heads[2:])
    (said,) = report.restores
    assert (said.position, said.after, said.actor, said.file) == (31, 30, "kim", "wine.zip")
    assert record.audit().restores == (said,)


def test_a_restore_explains_no_head_that_was_kept_after_it_and_none_of_before_the_backup(record):
    at = restored(record)
    for position in (32, 39):
        later = Anchor(position, "a" * 64, at + 1, "the other disk")
        assert not record.audit(later).is_whole
    early = record.audit(record.anchor(10), record.anchor(29, "a" * 64))
    assert (early.what, early.first_bad) == ("rewritten", 11)


def test_an_entry_that_claims_a_restore_of_another_place_explains_nothing(record):
    restored(record, says=3)
    report = record.audit(record.anchor(10), record.anchor(32))
    assert (report.what, report.restores) == ("rewritten", ())


def test_an_empty_record_and_one_that_lost_all(tmp_path):
    empty = Record(tmp_path / "e.db", n=0)
    assert empty.audit().is_whole
    assert audit_first(empty, Anchor(3, "a" * 64, 0.0, "x")) == (1, "cut")


def test_memory_does_not_grow_with_the_record(tmp_path):
    def peak(n):
        record = Record(tmp_path / f"{n}.db", n=0)
        prev, rows = GENESIS, []
        for i in range(1, n + 1):
            row = (i, "s", i, None, "said", 1.0, "kim", "[]", "[]", '{"x":"' + "y" * 300 + '"}', None, prev, "")  # fmt: skip
            rows.append(put(row, hash=digest(row)))
            prev = rows[-1][12]
        record.write(rows)
        del rows
        ledger = SqliteLedger(record.path)
        tracemalloc.start()
        report = audit.verify(ledger.rows(), row_at=ledger.row, search=ledger.rows)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        ledger.close()
        assert report.n_entries == n
        return most

    assert peak(10_000) < 1.2 * peak(4_000)
