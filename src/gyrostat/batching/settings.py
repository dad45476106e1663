"""`batch:` of the declaration: tables that the champion answers on a schedule."""

from __future__ import annotations

from dataclasses import dataclass

from gyrostat.schedule import Schedule, local_date

DATE = "{date}"


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """`models.<model>.batch.<name>`."""

    name: str
    input: str
    """A file, relative to the project; `{date}` in it is the day, by the schedule's zone, of the moment it is due."""
    output: str
    """The same; without `{date}` each batch takes the place of the one before."""
    schedule: Schedule
    keep: tuple[str, ...] = ()
    """Columns of the input that stand beside the answers, besides the declared keys."""
    is_replayed: bool = False
    """Candidates are compared with the champion by it: production is told of it."""

    def dated(self, path: str, due: float) -> str:
        """The path as it is for the moment `due`."""
        return path.replace(DATE, local_date(self.schedule, due))
