"""Evidence that goes on: however often the loop ends and begins, each line counts once, and little is read again."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gyrostat.gates.settings import GateSettings
from gyrostat.loop import judged
from gyrostat.loop.judged import Follower
from gyrostat.observations import Segments, read
from gyrostat.rollout.evidence import Evidence
from gyrostat.rollout.settings import RolloutSettings
from gyrostat.stats.histograms import bucket
from gyrostat.terms import Limit, Margin

SETTINGS = RolloutSettings(guardrails={"error_rate": Margin.parse("+1pp"), "latency_p99": Margin.parse("x1.2")})  # fmt: skip
GATES = GateSettings(limits=(Limit("error_rate", max=0.05),))


def a_second(second: int, seq: int) -> list[dict[str, Any]]:
    dice = random.Random(second)
    return [
        {"second": second, "routes_seq": seq, "bundle": bundle, "arm": arm, "n": 50, "errors": dice.randrange(4), "slow": 0,
         "latency": {str(bucket(dice.uniform(0.001, 0.01))): 50}}
        for bundle, arm in (("old", "champion"), ("new", "candidate"))
    ]  # fmt: skip


def fresh(declaration: str = "d", since: int = 3) -> tuple[Evidence, str, int]:
    evidence = Evidence(
        SETTINGS, GATES, champion="old", candidate="new", since_seq=since, champion_since_seq=2
    )
    return evidence, declaration, 2


def said(evidence: Evidence) -> str:
    return json.dumps([evidence.traffic(5), evidence.champion_limits()])


def at_once(folder: Path) -> str:
    evidence = fresh()[0]
    evidence.fold(line for line, _ in read(folder))
    return said(evidence)


@pytest.fixture(autouse=True)
def always_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judged, "KEEP_EVERY_S", 0.0)


@given(st.lists(st.sampled_from(["look", "end", "kill", "damage"]), min_size=20, max_size=60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)  # fmt: skip
def test_however_it_ends_and_begins_the_evidence_is_that_of_all_lines(
    tmp_path_factory: pytest.TempPathFactory, story: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("observations")
    segments, follower = Segments(folder, segment_bytes=3000), Follower(folder, "rollout")
    for second, what in enumerate(story):
        segments.append(a_second(second, 1 + second // 8), {"closed": second})
        if what in ("look", "end"):
            found = follower.follow(*fresh())
            assert said(found) == at_once(folder)
        if what != "look":
            follower = Follower(folder, "rollout")
        if what == "damage" and follower.path.exists():
            content = bytearray(follower.path.read_bytes())
            content[second % len(content)] ^= 1
            follower.path.write_bytes(content)
    assert said(follower.follow(*fresh())) == at_once(folder)


def count_lines(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    n = [0]

    def counted(*args: Any) -> Any:
        for found in read(*args):
            n[0] += 1
            yield found

    monkeypatch.setattr(judged, "read", counted)
    return n


def test_a_restart_reads_what_is_new_and_a_rollout_what_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segments = Segments(tmp_path, segment_bytes=3000)
    for second in range(200):
        segments.append(a_second(second, 1 + second // 10), {"closed": second})
    n = count_lines(monkeypatch)
    Follower(tmp_path, "champion").follow(*fresh())
    assert n[0] > 300
    n[0] = 0
    segments.append(a_second(200, 20), {"closed": 200})
    Follower(tmp_path, "champion").follow(*fresh())
    assert n[0] == 2
    n[0] = 0
    late = Evidence(SETTINGS, GATES, champion="old", candidate="new", since_seq=20, champion_since_seq=None)  # fmt: skip
    Follower(tmp_path, "rollout").follow(late, "d", 20)
    assert n[0] < 60


def test_another_question_takes_nothing_over(tmp_path: Path) -> None:
    segments, follower = Segments(tmp_path), Follower(tmp_path, "rollout")
    for second in range(50):
        segments.append(a_second(second, 1 + second // 8), {"closed": second})
    first = said(follower.follow(*fresh()))
    later = follower.follow(*fresh(since=5))
    assert said(later) != first
    assert said(Follower(tmp_path, "rollout").follow(*fresh(since=5))) == said(later)
    other = Follower(tmp_path, "rollout")
    other.follow(*fresh("another declaration", since=5))
    assert other.place == follower.place


def test_what_another_release_kept_otherwise_leaves_nothing_behind(tmp_path: Path) -> None:
    segments, follower = Segments(tmp_path), Follower(tmp_path, "rollout")
    for second in range(50):
        segments.append(a_second(second, 1 + second // 8), {"closed": second})
    follower.follow(*fresh())
    content = follower.path.read_text().partition("\n")[2].replace('"of":', '"about":')
    follower.path.write_text(hashlib.sha256(content.encode()).hexdigest() + "\n" + content)
    assert said(Follower(tmp_path, "rollout").follow(*fresh())) == at_once(tmp_path)


def test_what_was_kept_of_lines_that_are_gone_is_not_taken(tmp_path: Path) -> None:
    segments, follower = Segments(tmp_path), Follower(tmp_path, "rollout")
    for second in range(50):
        segments.append(a_second(second, 1 + second // 8), {"closed": second})
    follower.follow(*fresh())
    path = tmp_path / "00000001.seg"
    cut = path.read_bytes()[: path.stat().st_size // 2]
    path.write_bytes(cut)  # as a restore of an older state would leave it
    Segments(tmp_path)
    assert said(Follower(tmp_path, "rollout").follow(*fresh())) == at_once(tmp_path)
