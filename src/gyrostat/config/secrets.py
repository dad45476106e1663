"""Secrets are names in the declaration (`env:NAME`); here a name becomes its value, at the moment it is used."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from gyrostat.errors import UnavailableError

ENV = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)")


def secret(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """The value that `env:NAME` stands for; any other text is itself.

    Raises:
        UnavailableError: the variable is not set, or empty.
    """
    found = ENV.fullmatch(text)
    if found is None:
        return text
    value = environ.get(found[1], "")
    if not value:
        raise UnavailableError(f"the variable {found[1]} is not set where `gyrostat up` runs")
    return value
