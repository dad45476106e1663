"""What is answered already: parts in a folder beside the output, each durable, so that a second run goes on from there."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gyrostat_runtime.files import write_atomic

from gyrostat.errors import TakenError

if TYPE_CHECKING:
    import pyarrow as pa

_PLAN = "plan.json"
_ROWS, _FAILED = b"rows", b"failed"


@dataclass(frozen=True, slots=True)
class Part:
    """How much stands in one part."""

    n_rows: int
    n_failed: int


class Parts:
    """The folder `.<output>.parts`, held by one process at a time.

    Killed at any instant, it holds whole parts only, and beside them at most what the next run removes.
    """

    def __init__(self, output: Path) -> None:
        self.folder = output.parent / f".{output.name}.parts"
        self.id = ""
        """Of this batch: the same for all runs that it takes."""
        self.began_at = 0.0

    @contextlib.contextmanager
    def held(self, plan: dict[str, Any], now: float) -> Iterator[str]:
        """Hold the folder for a plan; gives what of an earlier plan was thrown away, in words, or nothing.

        Raises:
            TakenError: another process writes this output.
        """
        self.folder.mkdir(exist_ok=True)
        with (self.folder / "lock").open("wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise TakenError(
                    f"Another gyrostat predict writes {self.folder.name[1:-6]} now. Wait for it, or name another --output. Nothing was done."
                ) from None
            yield self._begin(plan, now)

    def _begin(self, plan: dict[str, Any], now: float) -> str:
        old = self._read_plan()
        if old.get("plan") != plan:
            for path in self.folder.iterdir():
                if path.name != "lock":
                    path.unlink()
            fresh = {"plan": plan, "id": uuid.uuid4().hex[:12], "began_at": now}
            write_atomic(self.folder / _PLAN, json.dumps(fresh).encode())
            self.id, self.began_at = fresh["id"], now
            differs = [k for k, v in plan.items() if old["plan"].get(k) != v] if old else []
            return ", another ".join(differs)
        for path in self.folder.glob(".*.tmp"):
            path.unlink()
        self.id, self.began_at = old["id"], old["began_at"]
        return ""

    def _read_plan(self) -> dict[str, Any]:
        try:
            return json.loads((self.folder / _PLAN).read_bytes())
        except FileNotFoundError:
            return {}

    def known(self, n: int) -> Part | None:
        """Part `n`, if it was answered before."""
        if not self._path(n).exists():
            return None
        said = self.read(n).schema.metadata or {}
        return Part(int(said[_ROWS]), int(said[_FAILED]))

    def write(self, n: int, table: pa.Table, n_failed: int) -> Part:
        """Make part `n` durable."""
        import pyarrow as pa

        table = table.replace_schema_metadata({_ROWS: str(table.num_rows), _FAILED: str(n_failed)})
        buffer = pa.BufferOutputStream()
        options = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
        with pa.ipc.new_file(buffer, table.schema, options=options) as writer:
            writer.write_table(table)
        write_atomic(self._path(n), buffer.getvalue().to_pybytes())
        return Part(table.num_rows, n_failed)

    def read(self, n: int) -> pa.Table:
        """The rows of part `n`."""
        import pyarrow as pa

        with pa.memory_map(str(self._path(n))) as file:
            return pa.ipc.open_file(file).read_all()

    def remove(self) -> None:
        """Of no more use: the output is there."""
        shutil.rmtree(self.folder)

    def _path(self, n: int) -> Path:
        return self.folder / f"{n:08d}.arrow"


def sync(path: Path) -> None:
    """Make a file's bytes durable."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
