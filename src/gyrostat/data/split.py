"""Which side of the split a row is on: by the row alone, so it is the same in every snapshot, and twins stay together."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from gyrostat.data.settings import DataSettings

if TYPE_CHECKING:
    import polars

HELDOUT, TRAIN = "heldout", "train"


def canonical(values: Iterable[Any]) -> bytes:
    """One row's values as bytes, the same whether they came from a file or through JSON."""
    return "\x1f".join(_text(v) for v in values).encode()


def _text(value: Any) -> str:
    if value is None:
        return "\x00"
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, (int, float)):
        return repr(float(value))
    return "'" + value


def side_of(key: bytes, holdout: float) -> str:
    """`heldout` for a share `holdout` of all keys."""
    number = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")
    return HELDOUT if number < holdout * 2**64 else TRAIN


def sides(
    df: polars.DataFrame, settings: DataSettings, inputs: list[str], keys: list[Any] | None = None
) -> list[str]:
    """One side a row.

    Args:
        df: typed rows.
        inputs: the columns that a request has, without the target.
        keys: values of `split.group` or `keys.entity` a row where one is declared; None in it: by the inputs.
    """
    split = settings.split
    if split.by:
        cut = split.cut
        return [HELDOUT if (v or "") >= cut else TRAIN for v in df[split.by].to_list()]
    rows = zip(*(df[name].to_list() for name in sorted(inputs)), strict=True)
    found = []
    for n, row in enumerate(rows):
        own = keys[n] if keys is not None and keys[n] is not None else None
        found.append(
            side_of(canonical([own]) if own is not None else canonical(row), split.holdout)
        )
    return found
