"""The finished file: Parquet, or CSV that is safe to open in a spreadsheet."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from gyrostat.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".parquet", ".csv")
_SIGNS = "=+-@\t\r"
_FORMULA = r"^[=+\-@\t\r]"
_NUMBER = r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?$"


class _Writer(Protocol):
    def write_table(self, table: pa.Table) -> None: ...
    def close(self) -> None: ...


def check_name(output: Path) -> None:
    """Refuse what no writer is for.

    Raises:
        UsageError: the name says neither Parquet nor CSV, or its folder is not there.
    """
    if output.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"--output {output.name}: a name that ends in {' or '.join(SUFFIXES)} is needed. Nothing was done."
        )
    if output.is_dir():
        raise UsageError(f"--output {output} is a folder; a file is needed. Nothing was done.")
    if not output.parent.is_dir():
        raise UsageError(f"--output: there is no folder {output.parent}. Nothing was done.")


def write(path: Path, tables: Iterable[pa.Table], *, as_csv: bool) -> None:
    """Write tables of one schema as one file. The same tables give the same bytes."""
    writer: _Writer | None = None
    try:
        for table in tables:
            table = inert(table) if as_csv else table
            if writer is None:
                writer = _open(path, table.schema, as_csv=as_csv)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def _open(path: Path, schema: pa.Schema, *, as_csv: bool) -> _Writer:
    import pyarrow.csv
    import pyarrow.parquet

    if as_csv:
        options = pyarrow.csv.WriteOptions(quoting_style="needed")
        return pyarrow.csv.CSVWriter(path, schema, write_options=options)
    return pyarrow.parquet.ParquetWriter(path, schema, compression="zstd", compression_level=1)


def inert(table: pa.Table) -> pa.Table:
    """An apostrophe before each text, and each name, that a spreadsheet would take for a formula; numbers are none."""
    import polars as pl

    frame = pl.DataFrame(pl.from_arrow(table))
    text = pl.col(pl.String, pl.Categorical).cast(pl.String)
    is_formula = text.str.contains(_FORMULA) & ~text.str.contains(_NUMBER)
    frame = frame.with_columns(pl.when(is_formula).then("'" + text).otherwise(text).name.keep())
    return frame.rename(lambda name: f"'{name}" if name[:1] in tuple(_SIGNS) else name).to_arrow()
