"""A flipped bit in what was observed is found before anything is judged by it; what is good before it still is."""

import pytest

from gyrostat.errors import DamagedError
from gyrostat.observations import Place, Segments, read, verify


def written(folder, *, appends=5, segment_bytes=16_000_000):
    segments = Segments(folder, segment_bytes=segment_bytes)
    for n in range(appends):
        segments.append([{"second": n, "n": 10 + n}], {"closed": n})
    return segments


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def seen(folder, since=None):
    """What is given, and whether it ends in damage."""
    found = []
    try:
        for line, _ in read(folder, since):
            found.append(line["second"])
    except DamagedError as error:
        return found, str(error)
    return found, ""


def test_whichever_bit_is_flipped_nothing_but_what_was_written_is_ever_given(tmp_path):
    written(tmp_path)
    path = tmp_path / "00000001.seg"
    whole = path.read_bytes()
    last = whole.index(b'{"second":3')
    for at in range(len(whole)):
        flip(path, at)
        found, why = seen(tmp_path)
        assert found == list(range(len(found))), at
        # At the end it may be an append that was cut: it is not given, and the next appends say what it is.
        assert why or at >= last, at
        assert len(found) < 5, at
        path.write_bytes(whole)
    assert seen(tmp_path) == ([0, 1, 2, 3, 4], "")


def test_the_message_says_what_to_do_and_that_works(tmp_path):
    segments = written(tmp_path, appends=12, segment_bytes=400)
    numbers = sorted(tmp_path.glob("*.seg"))
    assert len(numbers) > 3
    flip(numbers[1], 40)
    found, why = seen(tmp_path)
    assert found
    assert f"mv {tmp_path.parent.name}/{tmp_path.name}/00000002.seg" in why
    numbers[1].rename(f"{numbers[1]}.damaged")
    rest, why = seen(tmp_path)
    assert why == ""
    assert set(rest) < set(range(12))
    assert rest[-1] == 11
    assert seen(tmp_path, segments.place) == ([], "")


def test_what_comes_after_a_place_is_followed_from_its_chain(tmp_path):
    written(tmp_path)
    places = [place for _, place in read(tmp_path)]
    flip(tmp_path / "00000001.seg", places[1].offset - 80)
    assert seen(tmp_path, places[1]) == ([2, 3, 4], "")  # before it: nobody asked
    other = Place(places[1].segment, places[1].offset, "f" * 64)
    assert seen(tmp_path, other)[1]


@pytest.mark.parametrize("is_json", [True, False])
def test_a_writer_that_starts_on_damage_cuts_nothing_away_and_goes_on(tmp_path, is_json):
    written(tmp_path)
    path = tmp_path / "00000001.seg"
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"n":11', b'"n":15' if is_json else b'"n";11'))
    segments = Segments(tmp_path)
    assert segments.cut_bytes == 0
    assert segments.mark == {"closed": 4}
    segments.append([{"second": 5, "n": 15}], {"closed": 5})
    found, why = seen(tmp_path)
    assert (found, bool(why)) == ([0], True)
    n, broken = verify(tmp_path)
    assert broken is not None
    assert n == 2


def test_blocks_of_zeros_at_the_end_are_a_torn_append(tmp_path):
    """What a power cut leaves of an append that was not synced."""
    segments = written(tmp_path)
    before = segments.place.offset
    segments.append([{"second": 5, "text": "x" * 300}, {"second": 6}], {"closed": 6})
    path = tmp_path / "00000001.seg"
    data = bytearray(path.read_bytes())
    data[before : before + 200] = bytes(200)
    path.write_bytes(data)
    assert seen(tmp_path) == ([0, 1, 2, 3, 4], "")
    assert Segments(tmp_path).place.offset == before
    assert path.stat().st_size == before
