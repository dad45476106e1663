"""What stands still until somebody does something: found by reading, so a restart finds the same."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gyrostat.errors import IllegalStepError, LedgerError, MalformedEntryError, UnknownKindError
from gyrostat.loop.reconcile import ENDLESS, LIVES, facts_of
from gyrostat.ports import Ledger
from gyrostat.serving.receipts import refusal


@dataclass(frozen=True, slots=True)
class Stuck:
    """A stream that cannot go on."""

    stream: str
    key: str
    """The same as long as it is stuck by the same thing."""
    position: int
    """Of the entry it is stuck at; 0: no entry."""
    why: str
    command: str

    @property
    def model(self) -> str:
        """Whose it is."""
        return self.stream.split("/")[1]


def stuck(ledger: Ledger, state: Path, models: Iterable[str]) -> list[Stuck]:
    """Everything that is stuck now. Costs the streams that are not over."""
    declared = [f"{kind}/{model}" for model in models for kind in ENDLESS]
    listed = [s for s in ledger.streams() if s.partition("/")[0] in LIVES]
    found = []
    for stream in dict.fromkeys([*declared, *listed]):
        try:
            facts = facts_of(ledger, stream)
        except UnknownKindError as error:
            found.append(_at(stream, error, "pip install --upgrade gyrostat"))
        except (IllegalStepError, MalformedEntryError) as error:
            found.append(_at(stream, error, "gyrostat audit verify"))
        except LedgerError:
            raise
        except Exception as error:  # noqa: BLE001 - an entry that no fold expects: the loop fails over it again and again
            why = f"its entries cannot be read: {type(error).__name__}: {error}"
            found.append(Stuck(stream, f"{stream}?", 0, why, "gyrostat audit verify"))
        else:
            if stream.startswith("production/"):
                model, seq = stream.split("/")[1], facts.routed_at
                if why := refusal(state, model, seq):
                    found.append(
                        Stuck(stream, f"{stream}!{seq}", 0, why, f"gyrostat roll-back {model}")
                    )
    return found


def _at(stream: str, error: UnknownKindError | IllegalStepError | MalformedEntryError, command: str) -> Stuck:  # fmt: skip
    position = error.facts.get("entry", 0)
    return Stuck(stream, f"{stream}@{position}", position, str(error), command)
