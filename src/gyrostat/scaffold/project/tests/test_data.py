def test_the_source_keeps_its_rules(table):
    assert table["report"]["broken"] == []


def test_both_sides_of_the_split_have_rows(table):
    assert len(table["train"]) > 0 and len(table["heldout"]) > 0
