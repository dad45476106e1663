"""Read a table exactly as it is: every value as the text in the file, and nothing guessed without a word."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from gyrostat.data import columnar, dialect, encodings, files, names, records
from gyrostat.data.settings import SourceSettings
from gyrostat.errors import DataError

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Sniffed:
    """How a table is to be read, and what was noticed on the way."""

    settings: SourceSettings
    notes: tuple[str, ...]
    repeated: tuple[str, ...] = ()
    """Names that stand more than once in the file."""


def sniff(path: Path) -> Sniffed:
    """Find out how to read `path`.

    Raises:
        UsageError: there is no such file, or it is a folder.
        DataError: it is empty or binary, or its first line holds no names.
    """
    return _sniffed(path, files.content(path))[0]


def read(path: Path, settings: SourceSettings) -> pl.DataFrame:
    """All columns as text, exactly as in the file after decoding; null only for the empty field.

    Column names are trimmed, a blank one becomes `column <n>`, one that stood before gets ` (column <n>)`. Values that
    have a type, as in Parquet, become their canonical text: numbers with a point, dates in ISO 8601, booleans `True` and `False`.

    Raises:
        UsageError: there is no such file, or it is a folder.
        DataError: no rows, ragged lines, no header, wrong encoding, binary content.
    """
    content = files.content(path)
    body = content.data
    del content
    kind = settings.format or ("parquet" if body.startswith(b"PAR1") else "csv")
    if kind != "parquet":
        body = encodings.in_utf8(body, settings.encoding, path.name)
    return _read(body, kind, settings, path.name)[0]


def load(path: Path) -> tuple[Sniffed, pl.DataFrame]:
    """What `sniff` finds and `read` reads, of the same bytes.

    Raises:
        UsageError, DataError: as they do.
    """
    sniffed, body = _sniffed(path, files.content(path))
    frame, named = _read(body, sniffed.settings.format or "csv", sniffed.settings, path.name)
    return Sniffed(sniffed.settings, (*sniffed.notes, *named.notes), named.repeated), frame


def differences(path: Path, settings: SourceSettings) -> list[str]:
    """How `path` looks otherwise than declared: `data.source.separator: ";" -> ","`; empty if it looks the same.

    For an error message, so it never raises one itself.
    """
    try:
        now = sniff(path).settings
    except Exception:  # noqa: BLE001  whatever is wrong, the first error says it better
        return []
    found = []
    for field in fields(SourceSettings):
        if field.name in ("path", "decimal", "thousands", "header"):
            continue
        old, new = (getattr(s, field.name) or "csv" if field.name == "format" else getattr(s, field.name) for s in (settings, now))  # fmt: skip
        if old != new and not (
            field.name == "encoding" and "utf-8" in (old, new) and _is_ascii(path)
        ):
            found.append(f"data.source.{field.name}: {old!r} -> {new!r}")
    return found


def _is_ascii(path: Path) -> bool:
    return files.content(path).data.isascii()


def _sniffed(path: Path, content: files.Content) -> tuple[Sniffed, bytes]:
    body, notes = content.data, []
    if content.packing:
        notes.append(content.packing)
    if body.startswith(b"PAR1"):
        settings = SourceSettings(path=str(path), format="parquet")
        return Sniffed(settings, (*notes, "Parquet")), body
    encoding = encodings.judge(body, path.name)
    mark = " (with its mark)" if body.startswith(encodings.MARK) else ""
    notes.append(encodings.SHOWN.get(encoding, encoding) + mark)
    body = encodings.in_utf8(body, encoding, path.name, is_judged=True)
    if columnar.is_json_lines(body):
        settings = SourceSettings(path=str(path), format="jsonl", encoding=encoding)
        return Sniffed(settings, (*notes, "JSON lines")), body
    if body.lstrip()[:1] in (b"[", b"{") and path.suffix.lower() == ".json":
        raise DataError(
            f"{path.name} is one JSON text; JSON lines are read: one object a line. Nothing was done."
        )
    if body.lstrip()[:1] == b"<" and b">" in body[:500] and body.lstrip()[:6].lower() in (b"<html>", b"<!doct", b"<?xml ", b"<table"):  # fmt: skip
        raise DataError(
            f"{path.name} is a page (HTML or XML), not a table: was it a download that asked to sign in? Nothing was done."
        )
    found = dialect.seen(body, path.name)
    settings = SourceSettings(
        path=str(path), encoding=encoding, separator=found.separator, skip_lines=found.skip_lines
    )
    return Sniffed(settings, (*notes, *found.notes)), body


def _read(
    body: bytes, kind: str, settings: SourceSettings, name: str
) -> tuple[pl.DataFrame, names.Names]:
    match kind:
        case "parquet":
            frame = columnar.parquet(body, name)
            header = frame.columns
        case "jsonl":
            frame = columnar.json_lines(body, name)
            header = frame.columns
        case _:
            quick = records.quickly(body, settings)
            header, frame = quick or records.carefully(body, settings, name)
            if settings.header and len(header) > 1 and not header[-1].strip() and frame.height:
                last = frame.to_series(frame.width - 1)
                if last.null_count() == frame.height:
                    # Header and rows alike end with a separator.
                    frame, header = frame.drop(last.name), header[:-1]
    named = names.named(header, name)
    if frame.height == 0:
        raise DataError(
            f"{name} has {len(header):,} column{'s' * (len(header) != 1)} and no rows. Nothing was done."
        )
    frame.columns = list(named.all)
    return frame, named
