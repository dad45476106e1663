"""Version numbers and what became of each, folded from the ledger's entries."""

from gyrostat.registry import versions
from gyrostat.registry.versions import Status, fold
from gyrostat.terms import Entry

STREAM = "production/wine"


class Story:
    """Entries of one stream, as the life writes them."""

    def __init__(self):
        self.entries = []

    def say(self, kind, *inputs, outputs=(), actor="loop", **body):
        seq = len(self.entries) + 1
        self.entries.append(
            Entry(
                seq,
                STREAM,
                seq,
                None,
                kind,
                100.0 + seq,
                actor,
                inputs,
                tuple(outputs),
                body,
                None,
                "",
                "",
            )
        )
        return self

    def offer(self, bundle, run=1):
        self.say("offered", bundle=bundle, run=f"run/wine/{run}", snapshot=f"s{run}")
        return f"{STREAM}#{len(self.entries)}"

    def release(self, bundle, run=1):
        entry = self.offer(bundle, run)
        self.say("staging_started", bundle, entry).say("staging_passed", bundle, entry)
        return (
            self.say("shadow_started", bundle, entry)
            .say("advanced", bundle, entry)
            .say("promoted", bundle, entry)
        )

    @property
    def versions(self):
        return fold("wine", self.entries)

    @property
    def statuses(self):
        return [v.status.value for v in self.versions.all]


def test_a_version_has_its_run_snapshot_and_approver():
    story = Story()
    entry = story.offer("aa", run=7)
    story.say("staging_started", "aa", entry).say("staging_passed", "aa", entry)
    story.say("approval_asked", "aa", entry).say("approved", "aa", entry, detail={"by": "kim"})
    story.say("promoted", "aa", entry)
    (version,) = story.versions.all
    assert (version.ref, version.bundle, version.run, version.snapshot) == (
        "version/wine/1",
        "aa",
        "run/wine/7",
        "s7",
    )
    assert (version.status, version.approved_by, version.champion_since) == (
        Status.CHAMPION,
        "kim",
        106.0,
    )


def test_numbers_count_on_and_are_never_given_twice():
    story = Story().release("aa")
    for bundle in ("bb", "bb"):
        entry = story.offer(bundle)
        story.say("staging_started", bundle, entry).say(
            "staging_failed", bundle, entry, cause="lost"
        )
    assert [v.number for v in story.versions.all] == [1, 2, 3]
    assert story.statuses == ["champion", "failed", "failed"]
    assert story.versions.of_bundle("bb").number == 3
    assert story.versions.all[1].cause == "lost"


def test_a_promotion_makes_the_champion_the_one_before():
    story = Story().release("aa").release("bb").release("cc")
    assert story.statuses == ["retired", "previous", "champion"]
    assert (story.versions.champion, story.versions.previous) == (3, 2)


def test_a_candidate_that_regresses_leaves_the_champion():
    story = Story().release("aa")
    entry = story.offer("bb")
    story.say("staging_started", "bb", entry).say("shadow_started", "bb", entry)
    assert (story.versions.candidate, story.statuses[1]) == (2, "canary")
    story.say("regressed", "bb", entry, cause="errors")
    assert story.statuses == ["champion", "regressed"]
    assert (story.versions.champion, story.versions.candidate) == (1, 0)
    assert story.versions.all[1].cause == "errors"


def test_a_champion_that_regresses_gives_way_to_the_one_before():
    story = Story().release("aa").release("bb").say("champion_regressed", "bb", cause="quality")
    assert story.statuses == ["champion", "regressed"]
    assert (story.versions.champion, story.versions.previous) == (1, 0)


def test_a_rollback_by_hand_and_back_again():
    story = Story().release("aa").release("bb").say("rolled_back", "bb", cause="by hand")
    assert story.statuses == ["champion", "rolled_back"]
    story.say("resumed", outputs=("bb",))
    assert story.statuses == ["previous", "champion"]
    assert (story.versions.champion, story.versions.previous) == (2, 1)


def test_a_rollback_to_a_named_version():
    story = (
        Story()
        .release("aa")
        .release("bb")
        .release("cc")
        .say("rolled_back", "cc", detail={"to": "aa"})
    )
    assert story.statuses == ["champion", "retired", "rolled_back"]
    assert story.versions.champion == 1


def test_a_candidate_that_is_set_aside_is_staged_again_under_its_number():
    story = Story().release("aa").release("bb")
    entry = story.offer("cc")
    story.say("staging_started", "cc", entry, outputs=["version/wine/3"]).say("rolled_back", "bb")
    assert story.statuses == ["champion", "rolled_back", "queued"]
    story.say("resumed").say("staging_started", "cc", entry, outputs=["version/wine/3"])
    assert story.statuses == ["champion", "rolled_back", "staging"]
    story.say("held", "cc", entry)
    assert story.statuses[2] == "queued"
    assert story.versions.candidate == 0


def test_an_end_of_another_offer_of_the_same_bundle_is_not_the_candidates():
    story = Story().release("aa")
    entry = story.offer("bb")
    story.say("staging_started", "bb", entry).say("shadow_started", "bb", entry)
    again = story.offer("bb")
    story.say("superseded", "bb", again)
    assert story.statuses == ["champion", "canary"]


def test_an_offer_that_is_turned_away_at_the_door_has_no_number():
    story = Story().release("aa")
    entry = story.offer("bb")
    story.say("refused", "bb", entry, cause="regressed")
    assert story.statuses == ["champion"]


def test_what_production_itself_writes_is_read():
    from gyrostat.rollout import production
    from gyrostat.rollout.states import TRANSITIONS

    written = {kind for _, kind in TRANSITIONS}
    read = {"staging_started", "promoted", "held", "rolled_back", "resumed", "champion_regressed"}
    read |= set(versions._ENDS) | set(versions._STEPS)
    # Kinds that say nothing about a version; a new one has to be placed on either side.
    silent = {"staging_passed", "staging_lost", "overdue", "told"}
    silent |= {"replay_started", "replay_lost", "replay_undecided"}  # it is approved all the while
    assert written <= read | silent
    assert read - {"rejected"} <= production.KINDS
