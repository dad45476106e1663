"""What really happened is judged again to the same, and every entry of it is in the chain."""

from __future__ import annotations

import pytest

from .conftest import Whole


@pytest.mark.slow
def test_all_that_was_decided_is_decided_the_same_again(whole: Whole) -> None:
    verified = whole.command("audit", "verify")
    assert verified["is_whole"]
    replayed = whole.command("audit", "replay")
    assert replayed["differ"] == []
    assert replayed["decisions"] > 10
    assert replayed["evidence"] >= 1
