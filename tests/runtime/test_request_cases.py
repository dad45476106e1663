"""The cases of tests/cases/requests that are about the body of `/invocations`, read without a server."""

import json
from importlib import util
from pathlib import Path

import numpy as np
import pytest
from gyrostat_runtime.errors import InputFault
from gyrostat_runtime.rows import Rows, read_json, read_records

FOLDER = Path(__file__).parents[1] / "cases"
_spec = util.spec_from_file_location("cases_play", FOLDER / "play.py")
play = util.module_from_spec(_spec)
_spec.loader.exec_module(play)

# A packed body is the server's to unpack, and 50 MB are its to refuse.
OF_THE_SERVER = {"size-50-mb"}


def is_ours(case: dict) -> bool:
    headers = {k.lower(): v for k, v in case.get("headers", {}).items()}
    return (
        case.get("path") in ("/invocations", "/predict/homes")
        and headers.get("content-type", "").startswith("application/json")
        and "content-encoding" not in headers
        and case["id"] not in OF_THE_SERVER
    )


ALL = play.read_cases(FOLDER / "requests")
CASES = [case for case in ALL.values() if is_ours(case)]


def read(case: dict, homes) -> Rows | InputFault:
    reader = read_records if case["path"] == "/predict/homes" else read_json
    try:
        return reader(play.body_of(case), homes)
    except InputFault as fault:
        return fault


def test_all_cases_about_bodies_are_here():
    assert len(CASES) == 36


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_case(case, homes):
    expect = case["expect"]
    found = read(case, homes)
    if isinstance(found, InputFault):
        assert found.status in expect["status"], case["why"]
        if expect.get("at") is not None:
            assert found.at in play.as_list(expect["at"]), case["why"]
        said = f"{found.message} {found.at}".lower()
        assert all(word.lower() in said for word in expect.get("says", []))
        assert len(json.dumps(found.message)) < expect.get("smaller_than", 2000)
        assert found.code.startswith("serving.")
        return
    assert 200 in expect["status"], case["why"]
    assert found.n == expect["rows"]
    if expect.get("same_as"):
        other = read(ALL[expect["same_as"]], homes)
        np.testing.assert_array_equal(found.num, other.num)
        assert found.cat.tolist() == other.cat.tolist()
