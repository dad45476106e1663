"""Observations are durable, chained, cut where torn, and read only where whole."""

import json
import os

import pytest

from gyrostat.observations import (
    Broken,
    Place,
    Segments,
    evidence,
    holds,
    prune,
    read,
    start_of,
    verify,
)
from gyrostat.observations import segments as segments_module


def values(folder, since=None):
    return [line for line, _ in read(folder, since)]


def test_what_was_appended_is_read_in_order_and_from_any_place(tmp_path):
    segments = Segments(tmp_path)
    first = segments.append([{"second": 1}, {"second": 2}], {"closed": 2})
    segments.append([{"second": 3, "name": "köln"}], {"closed": 3})
    assert values(tmp_path) == [{"second": 1}, {"second": 2}, {"second": 3, "name": "köln"}]
    assert values(tmp_path, first) == [{"second": 3, "name": "köln"}]
    assert Place.from_json(first.as_json()) == first
    places = [place for _, place in read(tmp_path)]
    assert values(tmp_path, places[0]) == values(tmp_path)[1:]


def test_a_new_writer_goes_on_from_the_last_mark_and_the_chain_stays_whole(tmp_path):
    Segments(tmp_path).append([{"second": 1}], {"closed": 1, "log": {"w": [1, 50]}})
    again = Segments(tmp_path)
    assert again.mark == {"closed": 1, "log": {"w": [1, 50]}}
    again.append([{"second": 2}], {"closed": 2})
    assert values(tmp_path) == [{"second": 1}, {"second": 2}]
    assert verify(tmp_path) == (4, None)


@pytest.mark.parametrize("keep", [1, 10, 60])
def test_an_append_torn_anywhere_never_happened(tmp_path, keep):
    segments = Segments(tmp_path)
    before = segments.append([{"second": 1}], {"closed": 1})
    segments.append([{"second": 2}, {"second": 3}], {"closed": 3})
    path = tmp_path / "00000001.seg"
    path.write_bytes(path.read_bytes()[: before.offset + keep])
    assert values(tmp_path) == [{"second": 1}]
    again = Segments(tmp_path)
    assert again.place == before
    assert again.mark == {"closed": 1}
    assert again.cut_bytes == keep
    again.append([{"second": 2}], {"closed": 2})
    assert values(tmp_path) == [{"second": 1}, {"second": 2}]
    assert verify(tmp_path) == (4, None)


def test_whole_lines_without_their_mark_are_torn_too(tmp_path):
    segments = Segments(tmp_path)
    segments.append([{"second": 1}], {"closed": 1})
    end = segments.append([{"second": 2}], {"closed": 2})
    path = tmp_path / "00000001.seg"
    data = path.read_bytes()
    assert end.offset == len(data)
    path.write_bytes(data[: data.rindex(b'{"mark"')])
    assert values(tmp_path) == [{"second": 1}]
    assert Segments(tmp_path).mark == {"closed": 1}


def test_segments_roll_over_and_the_chain_goes_through(tmp_path):
    segments = Segments(tmp_path, segment_bytes=400)
    for second in range(12):
        segments.append([{"second": second}], {"closed": second})
    assert len(list(tmp_path.glob("*.seg"))) > 3
    assert [v["second"] for v in values(tmp_path)] == list(range(12))
    assert verify(tmp_path) == (24, None)
    assert Segments(tmp_path).place == segments.place


@pytest.mark.parametrize(
    ("old", "new", "line"), [(b'"n":7', b'"n":8', 3), (b'"second":0', b'"second":9', 1)]
)
def test_verify_names_the_first_line_that_was_changed(tmp_path, old, new, line):
    segments = Segments(tmp_path)
    for second in range(3):
        segments.append([{"second": second, "n": 6 + second}], {"closed": second})
    path = tmp_path / "00000001.seg"
    path.write_bytes(path.read_bytes().replace(old, new))
    assert verify(tmp_path) == (line - 1, Broken(1, line))


def test_verify_names_a_line_that_was_taken_out(tmp_path):
    segments = Segments(tmp_path)
    for second in range(3):
        segments.append([{"second": second}], {"closed": second})
    path = tmp_path / "00000001.seg"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2] + lines[4:]))
    assert verify(tmp_path) == (2, Broken(1, 3))


def test_evidence_says_which_lines_and_changes_with_them(tmp_path):
    segments = Segments(tmp_path)
    first = segments.append([{"second": 1}], {"closed": 1})
    last = segments.append([{"second": 2}], {"closed": 2})
    assert evidence(last, first) == f"{last.chain}:1.{first.offset}-1.{last.offset}"
    assert evidence(first) != evidence(last)


def test_a_number_that_is_no_json_is_refused_before_anything_is_written(tmp_path):
    segments = Segments(tmp_path)
    with pytest.raises(ValueError, match="JSON"):
        segments.append([{"second": float("nan")}], {})
    assert values(tmp_path) == []


def test_old_segments_go_and_the_chain_of_the_rest_stays_whole(tmp_path):
    segments = Segments(tmp_path, segment_bytes=400)
    for second in range(12):
        segments.append([{"second": second}], {"closed": second})
    paths = sorted(tmp_path.glob("*.seg"))
    for path in paths[:2]:
        os.utime(path, (1000.0, 1000.0))
    assert prune(tmp_path, 2000.0) == 2
    assert sorted(tmp_path.glob("*.seg")) == paths[2:]
    n, broken = verify(tmp_path)
    assert broken is None
    assert 0 < n < 24
    assert Segments(tmp_path).place == segments.place
    paths[3].write_bytes(paths[3].read_bytes().replace(b'"second":', b'"zecond":', 1))
    assert verify(tmp_path)[1] == Broken(4, 1)


def a_long_record(folder, n=60):
    """Routes move on every five seconds; labels of older ones come late."""
    segments = Segments(folder, segment_bytes=900)
    for second in range(n):
        seq = 1 + second // 5
        late = {"second": second, "routes_seq": max(1, seq - 3), "n_labels": 1}
        segments.append([{"second": second, "routes_seq": seq}, late], {"closed": second})
    return segments


@pytest.mark.parametrize("seq", [0, 1, 2, 7, 12, 13])
def test_a_start_leaves_out_no_line_of_its_routes_and_little_else(tmp_path, seq):
    a_long_record(tmp_path)
    whole = values(tmp_path)
    wanted = [line for line in whole if line["routes_seq"] >= seq]
    found = values(tmp_path, start_of(tmp_path, seq))
    assert [line for line in found if line["routes_seq"] >= seq] == wanted
    first = next((n for n, line in enumerate(whole) if line["routes_seq"] >= seq), len(whole))
    assert len(found) <= len(whole) - first + 16


def test_a_start_is_found_again_after_a_restart_and_in_a_record_that_said_nothing_of_routes(
    tmp_path,
):
    segments = a_long_record(tmp_path)
    known = start_of(tmp_path, 7)
    again = Segments(tmp_path, segment_bytes=900)
    assert again.place == segments.place
    again.append([{"second": 60, "routes_seq": 2}], {"closed": 60})
    assert start_of(tmp_path, 7) == known
    chain = segments_module.GENESIS
    for path in sorted(tmp_path.glob("*.seg")):
        raws = []
        for line in path.read_bytes().splitlines():
            value = {k: v for k, v in json.loads(line).items() if k not in ("top", "chain")}
            raw, chain = segments_module._sealed(value, chain)
            raws.append(raw)
        path.write_bytes(b"".join(raws))
    assert start_of(tmp_path, 7) == Place()
    Segments(tmp_path, segment_bytes=1).append([{"second": 61}], {"closed": 61})
    assert start_of(tmp_path, 13).segment > known.segment


def test_a_place_holds_while_what_stands_before_it_is_there(tmp_path):
    segments = a_long_record(tmp_path)
    places = [place for _, place in read(tmp_path)]
    assert all(holds(tmp_path, place) for place in (Place(), places[0], places[-1], segments.place))
    last = places[-1]
    assert not holds(tmp_path, Place(last.segment, last.offset, "a" * 64))
    assert not holds(tmp_path, Place(last.segment, last.offset + 9, last.chain))
    assert not holds(tmp_path, Place(last.segment + 1, 10, last.chain))
    path = tmp_path / f"{last.segment:08}.seg"
    path.write_bytes(path.read_bytes()[: last.offset - 1])
    assert not holds(tmp_path, last)
