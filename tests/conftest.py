"""What all tests share."""

import os

import pytest
from hypothesis import settings

# In CI a change is judged by the same examples each time; new ones are searched for on people's machines.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("people", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "people")

LONG = {"chaos", "whole", "faults", "processes", "demo"}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take minutes begin first, so that no worker is left alone with one at the end."""
    items.sort(key=lambda item: LONG.isdisjoint(item.path.parts))
