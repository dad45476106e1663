"""The framed logs: what was said is read back whole, what was torn is cut, and no disk stops a prediction."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from gyrostat_runtime import log
from gyrostat_runtime.log import (
    Frame,
    Heartbeat,
    Label,
    LabelTail,
    LabelWriter,
    Sealed,
    Tail,
    Writer,
)


def a_frame(id: str = "0" * 26, at: float = 100.0, **changes) -> Frame:
    """A prediction of three rows with every kind of value that a request can hold."""
    values = {
        "routes_seq": 7,
        "bundle": "ab" * 32,
        "arm": "candidate",
        "status": 200,
        "latency_s": 0.0004,
        "key": "k1",
        "n": 3,
        "inputs": [
            [1.5, -0.0, 1e-300],
            [3, True, None, False, "서울", "", "\ud83d", 2**70, {"a": [1]}],
            [],
        ],
        "outputs": [5.62, "yes", True],
        "scores": [5.62, 0.9, 1.0],
        "new": {"city": 1},
        "missing": {"temperature": 2},
        "error": "",
    }
    return Frame(id, at, **(values | changes))


def written(folder: Path, n: int, *, writer: str = "w0", start: float = 100.0) -> list[Frame]:
    log_ = Writer(folder, writer, sync_s=60)
    frames = [a_frame(log_.next_id(start + i), start + i) for i in range(n)]
    for frame in frames:
        log_.append(frame)
    log_.sync()
    log_._stop.set()  # as a killed process leaves it: no seal
    return frames


def values(polled: list) -> list:
    return [value for _, value in polled]


def test_a_prediction_reads_back_as_it_was_said(tmp_path):
    (frame,) = written(tmp_path, 1)
    (back,) = log.read(tmp_path)
    assert back == frame
    assert [type(v) for v in back.inputs[1]] == [type(v) for v in frame.inputs[1]]


@pytest.mark.parametrize("value", [2**70, -(2**65), "half a \ud800 character"])
def test_a_prediction_that_messagepack_cannot_hold_reads_back_too(tmp_path, value):
    frame = a_frame(inputs=[[value, 1.5]])
    with contextlib.closing(Writer(tmp_path, "w0")) as writer:
        writer.append(frame)
    assert list(log.read(tmp_path)) == [frame]
    assert writer.dropped == 0


def test_frames_of_the_standard_library_and_of_messagepack_stand_in_one_log(tmp_path, monkeypatch):
    inputs = [[1.5, -0.0, 3, True, None, "서울", "", 2**63, {"a": [1]}], []]
    first, second = (a_frame(n * 26, 100.0 + int(n), inputs=inputs) for n in "01")
    with monkeypatch.context() as device:
        device.setattr(log, "msgspec", None)
        with contextlib.closing(Writer(tmp_path, "w0")) as writer:
            writer.append(first)
    with contextlib.closing(Writer(tmp_path, "w0")) as writer:
        writer.append(second)
    assert list(log.read(tmp_path)) == [first, second]
    (old, new) = sorted(tmp_path.glob("*.seg"))
    assert old.read_bytes()[16] == 1
    assert new.read_bytes()[16] == 6
    monkeypatch.setattr(log, "msgspec", None)
    assert list(log.read(tmp_path)) == [first]  # what it cannot read it steps over


@pytest.mark.parametrize("inputs", [[[1.5]], [[2**70]]])
@pytest.mark.parametrize("arm", ["champion", "candidate", "shadow"])
def test_that_the_client_chose_the_arm_reads_back_with_the_arm(tmp_path, arm, inputs):
    writer = Writer(tmp_path, "w0", sync_s=60)
    for n in range(2):
        writer.append(a_frame(writer.next_id(1.0), 1.0, arm=arm, inputs=inputs, is_asked=bool(n)))
    writer.close()
    assert [(f.arm, f.is_asked) for f in log.read(tmp_path)] == [(arm, False), (arm, True)]


def test_ids_are_26_letters_and_strictly_increase_even_when_the_clock_goes_back(tmp_path):
    writer = Writer(tmp_path, "w0", sync_s=60)
    ids = [writer.next_id(at) for at in (2e9, 2e9, 2e9 + 1, 1.9e9, 2e9 + 2)]
    writer.close()
    assert ids == sorted(set(ids))
    assert all(re.fullmatch("[0-9A-HJKMNP-TV-Z]{26}", id) for id in ids)
    assert log.time_of(ids[0] + ".4") == 2e9


def test_a_new_process_of_the_same_name_never_gives_an_id_below_the_old_one(tmp_path):
    first = Writer(tmp_path, "w0", sync_s=60)
    old = first.next_id(time.time())
    first.append(a_frame(old, time.time()))
    first.close()
    second = Writer(tmp_path, "w0", sync_s=60)
    assert second.next_id(0.0) > old
    second.close()


def test_two_writers_never_share_an_id_of_the_same_moment(tmp_path):
    one, two = Writer(tmp_path, "w0", sync_s=60), Writer(tmp_path, "w1", sync_s=60)
    assert one.next_id(2e9)[10:16] != two.next_id(2e9)[10:16]
    one.close(), two.close()


@pytest.mark.parametrize("keep", [1, 7, 8, 9, 60])
def test_a_torn_tail_is_cut_and_the_next_process_goes_on_behind_it(tmp_path, keep):
    frames = written(tmp_path, 3)
    (segment,) = tmp_path.glob("*.seg")
    whole = segment.read_bytes()
    size = (len(whole) - 8) // 3
    segment.write_bytes(whole[: 8 + 2 * size + keep])
    tail = Tail(tmp_path)
    assert values(tail.poll()) == frames[:2]
    assert tail.poll() == []  # the writer may still be at it
    more = written(tmp_path, 2, start=200.0)
    assert values(tail.poll()) == more
    assert tail.cut_bytes == keep
    assert list(log.read(tmp_path)) == frames[:2] + more


def test_a_flipped_bit_ends_its_segment_and_no_other(tmp_path):
    frames = written(tmp_path, 3)
    (segment,) = tmp_path.glob("*.seg")
    data = bytearray(segment.read_bytes())
    data[8 + (len(data) - 8) // 3 + 50] ^= 1
    segment.write_bytes(data)
    more = written(tmp_path, 1, start=200.0)
    assert values(Tail(tmp_path).poll()) == frames[:1] + more


def test_a_tail_goes_on_from_its_position_after_a_restart_over_many_writers(tmp_path):
    a = written(tmp_path, 2, writer="w0")
    b = written(tmp_path, 2, writer="w1")
    tail = Tail(tmp_path)
    assert sorted(f.id for f in values(tail.poll())) == sorted(f.id for f in a + b)
    position = json.loads(json.dumps(tail.position))
    later = written(tmp_path, 2, writer="w1", start=300.0)
    again = Tail(tmp_path, position)
    assert again.poll() == [("w1", f) for f in later]
    assert again.poll() == []


def test_a_helping_that_ends_inside_a_frame_loses_nothing(tmp_path, monkeypatch):
    frames = written(tmp_path, 9)
    frames += written(tmp_path, 9, start=200.0)
    monkeypatch.setattr(log, "_POLL_BYTES", 700)
    tail, seen, polls = Tail(tmp_path), [], 0
    while more := values(tail.poll()):
        seen += more
        polls += 1
    assert seen == frames
    assert polls > 2
    assert tail.cut_bytes == 0


def test_a_frame_larger_than_a_helping_is_read_whole(tmp_path, monkeypatch):
    frames = written(tmp_path, 2)
    monkeypatch.setattr(log, "_POLL_BYTES", 50)
    tail = Tail(tmp_path)
    assert values(tail.poll()) + values(tail.poll()) == frames


def test_a_full_segment_is_followed_by_a_new_one(tmp_path):
    writer = Writer(tmp_path, "w0", sync_s=60, segment_bytes=500)
    frames = [a_frame(writer.next_id(i), float(i)) for i in range(6)]
    for frame in frames:
        writer.append(frame)
        writer.sync()
    assert len(list(tmp_path.glob("w0.*.seg"))) > 1
    assert values(Tail(tmp_path).poll()) == frames
    writer.close()


def test_a_heartbeat_never_stands_before_what_it_vouches_for(tmp_path):
    writer = Writer(tmp_path, "w0", sync_s=60)
    writer.append(a_frame(at=100.0))
    writer.heartbeat(101.0)
    writer.append(a_frame(at=100.5))  # a clock that went back
    writer.close()
    first, beat, second, sealed = values(Tail(tmp_path).poll())
    assert (first.at, second.at) == (100.0, 101.0)
    assert beat == Heartbeat("w0", 101.0, 0)
    assert isinstance(sealed, Sealed)


def test_a_dead_writer_is_sealed_behind_its_torn_tail_and_may_come_back(tmp_path):
    frames = written(tmp_path, 1)
    (segment,) = tmp_path.glob("*.seg")
    with segment.open("ab") as file:
        file.write(b"torn")
    log.seal(tmp_path, "w0", 150.0)
    back = written(tmp_path, 1, start=200.0)
    assert values(Tail(tmp_path).poll()) == [*frames, Sealed("w0", 150.0), *back]


def test_a_full_disk_neither_raises_nor_loses_what_fits_again_later(tmp_path, monkeypatch):
    writer = Writer(tmp_path, "w0", sync_s=60)
    frames = [a_frame(writer.next_id(i), float(i)) for i in range(3)]
    real = os.write

    def half(handle, data):
        # The disk takes one frame and a piece of the second, then it is full.
        monkeypatch.setattr(log.os, "write", full)
        return real(handle, bytes(data)[: len(data) // 2])

    def full(handle, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    writer.append(a_frame("1" * 26, 0.0))
    writer.sync()
    for frame in frames:
        writer.append(frame)
    monkeypatch.setattr(log.os, "write", half)
    assert not writer.sync()
    assert writer.last_error == "No space left on device"
    monkeypatch.setattr(log.os, "write", real)
    assert writer.sync()
    assert values(Tail(tmp_path).poll())[1:] == frames
    assert writer.dropped == 0
    writer.close()


def test_a_disk_that_stays_full_costs_counted_frames_not_memory(tmp_path, monkeypatch):
    writer = Writer(tmp_path, "w0", sync_s=60)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(log, "_PENDING_BYTES", 2000)
    with monkeypatch.context() as disk:
        disk.setattr(log.os, "write", full)
        for i in range(40):
            writer.append(a_frame(at=float(i)))
            writer.sync()
    dropped = writer.dropped
    writer.heartbeat(50.0)
    writer.close()
    read = values(Tail(tmp_path).poll())
    assert 0 < dropped < 40
    assert len([v for v in read if isinstance(v, Frame)]) == 40 - dropped


@pytest.mark.parametrize("room", [0, 3, 8, 30, 500])
def test_a_full_disk_leaves_no_names_behind_however_often_it_is_tried(tmp_path, monkeypatch, room):
    writer = Writer(tmp_path, "w0", sync_s=60)
    frames = [a_frame(writer.next_id(i), float(i)) for i in range(20)]
    real, left = os.write, [room]

    def nearly_full(handle, data):
        taken = min(len(data), left[0])
        if not taken:
            raise OSError(errno.ENOSPC, "No space left on device")
        left[0] -= taken
        return real(handle, bytes(data)[:taken])

    with monkeypatch.context() as disk:
        disk.setattr(log.os, "write", nearly_full)
        for frame in frames:
            writer.append(frame)
            assert not writer.sync() or left[0]
        assert len(list(tmp_path.glob("*.seg*"))) <= 1
    assert writer.sync()
    assert len(list(tmp_path.glob("*.seg*"))) == 1
    writer.close()
    assert [v for v in values(Tail(tmp_path).poll()) if isinstance(v, Frame)] == frames
    assert Tail(tmp_path).cut_bytes == 0


def test_a_sync_that_fails_says_nothing_twice_and_loses_nothing(tmp_path, monkeypatch):
    writer = Writer(tmp_path, "w0", sync_s=60)
    frames = [a_frame(writer.next_id(i), float(i)) for i in range(6)]

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    for n, frame in enumerate(frames):
        with monkeypatch.context() as disk:
            if n % 2:
                disk.setattr(log.os, "fdatasync", full)
            writer.append(frame)
            assert writer.sync() == (n % 2 == 0)
    writer.close()
    assert [v for v in values(Tail(tmp_path).poll()) if isinstance(v, Frame)] == frames
    # What comes after a sync that failed never stands behind what that left, which may be unreadable after a power cut.
    assert len(list(tmp_path.glob("*.seg"))) == 4


def test_losses_move_with_whatever_may_not_be_on_the_disk(tmp_path, monkeypatch):
    writer = Writer(tmp_path, "w0", sync_s=60)
    before = writer.losses
    writer.append(a_frame(writer.next_id(1.0), 1.0))
    assert writer.sync()
    assert writer.losses == before
    writer.append(a_frame(inputs=[[object()]]))
    dropped = writer.losses
    assert dropped != before
    with monkeypatch.context() as disk:
        disk.setattr(log.os, "fdatasync", lambda _: (_ for _ in ()).throw(OSError(errno.EIO, "")))
        writer.append(a_frame(writer.next_id(2.0), 2.0))
        assert not writer.sync()
    assert writer.losses != dropped
    writer.close()


def test_a_value_that_cannot_be_laid_out_is_counted_not_raised(tmp_path):
    writer = Writer(tmp_path, "w0", sync_s=60)
    writer.append(a_frame(inputs=[[object()]]))
    assert writer.dropped == 1
    writer.close()


def test_read_gives_a_window_of_all_writers_in_the_order_of_time(tmp_path):
    written(tmp_path, 4, writer="w0", start=100.0)
    written(tmp_path, 4, writer="w1", start=100.5)
    assert [f.at for f in log.read(tmp_path, since=101.0, until=103.0)] == [
        101.0,
        101.5,
        102.0,
        102.5,
    ]


def test_find_gives_answer_and_shadow_of_one_prediction(tmp_path):
    writer = Writer(tmp_path, "w0", sync_s=60)
    ids = [writer.next_id(time.time()) for _ in range(3)]
    for id in ids:
        writer.append(a_frame(id, time.time(), arm="champion"))
    writer.append(a_frame(ids[1], time.time(), arm="shadow"))
    writer.close()
    assert [(f.id, f.arm) for f in log.find(tmp_path, ids[1] + ".0")] == [
        (ids[1], "champion"),
        (ids[1], "shadow"),
    ]
    with pytest.raises(ValueError, match="no prediction id"):
        log.find(tmp_path, "7")


def test_prune_keeps_the_newest_segment_of_each_writer(tmp_path):
    for start in (100.0, 200.0, 300.0):
        written(tmp_path, 1, start=start)
    for segment in tmp_path.glob("*.seg"):
        os.utime(segment, (1000.0, 1000.0))
    assert log.prune(tmp_path, before=2000.0) == 2
    assert [f.at for f in values(Tail(tmp_path, {"w0": [1, 8]}).poll())] == [300.0]


def test_a_kill_9_loses_nothing_that_was_synced(tmp_path):
    code = """
import sys, time
from pathlib import Path
from gyrostat_runtime.log import Writer, Frame
writer = Writer(Path(sys.argv[1]), "w0", sync_s=60)
for i in range(50):
    writer.append(Frame(writer.next_id(time.time()), time.time(), 1, "b", "champion", 200, 0.1))
writer.sync()
writer.append(Frame(writer.next_id(time.time()), time.time(), 1, "b", "champion", 200, 0.1))
print("synced", flush=True)
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"synced\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert len(list(log.read(tmp_path))) == 50


def test_labels_of_every_kind_are_kept_in_order_also_twice(tmp_path):
    writer = LabelWriter(tmp_path, "w0", sync_s=60)
    labels = [
        Label("a.0", v, float(i), "http") for i, v in enumerate([5, 5.5, "yes", True, None, 5])
    ]
    assert all([writer.append(label) for label in labels])
    assert writer.sync()
    assert values(LabelTail(tmp_path).poll()) == labels
    assert list(log.read_labels(tmp_path, since=1.0)) == labels[1:]
    writer.close()


def test_a_label_receipt_is_refused_while_the_disk_is_full(tmp_path, monkeypatch):
    writer = LabelWriter(tmp_path, "w0", sync_s=60)
    writer.append(Label("a", 1.0, 0.0))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(log.os, "write", full)
        assert not writer.sync()
    assert writer.sync()
    writer.close()
