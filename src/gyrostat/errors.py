"""Every error that Gyrostat raises on purpose.

An error means that a job could not be done; a refusal is a `Verdict`, never an exception. Each class has a stable
`code`, says whether trying again helps, and reads as: what, where, what is allowed, what was done, what to do.
"""

from __future__ import annotations

from typing import Any, ClassVar


class GyrostatError(Exception):
    """The base of all; `str(error)` is the one line (or few) that a user sees."""

    code: ClassVar[str] = "gyrostat"
    retryable: ClassVar[bool] = False
    exit_code: ClassVar[int] = 4
    """What the command line ends with: 1 refused, 2 usage, 3 failed but retryable, 4 failed."""

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        self.facts = facts
        """JSON values for `--json`: rows, columns, keys, limits."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors cross process boundaries: rebuild from fields, not from a formatted message.
        return _rebuild, (type(self), self.message, self.facts)

    def as_json(self) -> dict[str, Any]:
        """The shape that every `--json` error has."""
        return {
            "error": {
                "code": self.code,
                "message": self.message,
                "retryable": self.retryable,
                **self.facts,
            }
        }


def _rebuild(kind: type[GyrostatError], message: str, facts: dict[str, Any]) -> GyrostatError:
    return kind(message, **facts)


class UsageError(GyrostatError):
    """The call itself is wrong: a missing file, an unknown name, an argument out of range."""

    code = "usage"
    exit_code = 2


class ConfigError(GyrostatError):
    """The declaration says something that cannot be meant."""

    code = "config"
    exit_code = 2


class NotYetError(UsageError):
    """The declaration asks for something that this release does not do; the message says what works instead."""

    code = "not_yet"


class DataError(GyrostatError):
    """A table cannot be read, or cannot be learned from."""

    code = "data"


class ChecksFailedError(DataError):
    """Rows break declared rules; training did not start."""

    code = "data.checks_failed"
    exit_code = 1


class JobError(GyrostatError):
    """Work in another process failed; `facts` holds `cause`, `job` and the last lines of its output."""

    code = "job"


class BundleError(GyrostatError):
    """A bundle is truncated, altered, unsigned, signed by a key not trusted here, or cannot be loaded."""

    code = "bundle"


class UnavailableError(GyrostatError):
    """A call to the outside failed; what it asked for happened, did not, or is still going to. Look again."""

    code = "unavailable"
    retryable = True
    exit_code = 3


class DamagedError(GyrostatError):
    """What is stored is not what was written. It is not used until somebody has seen to it."""

    code = "damaged"


class TakenError(GyrostatError):
    """A port, a lock or a folder belongs to somebody else; the message says to whom."""

    code = "taken"
    exit_code = 2


class LedgerError(GyrostatError):
    """An append did not give what was asked for. The answer is always the same: read the stream, decide again."""

    code = "ledger"
    retryable = True
    exit_code = 3


class LostLedgerError(LedgerError):
    """The ledger's file is gone, damaged, or another one stands in its place: nothing is written until it is brought back."""

    code = "ledger.lost"
    retryable = False
    exit_code = 4


class ConflictError(LedgerError):
    """The stream moved on since it was read, or the clock went back since; nothing was written."""

    code = "ledger.conflict"


class FencedError(LedgerError):
    """The lease has gone to someone else; nothing was written."""

    code = "ledger.fenced"


class AmbiguousError(LedgerError):
    """The connection broke at the commit: it happened, did not, or is still going to. Never repeat the append."""

    code = "ledger.ambiguous"


class UnknownKindError(GyrostatError):
    """A newer release has written here. Stand back: do not skip it, do not act."""

    code = "ledger.unknown_kind"


class IllegalStepError(GyrostatError):
    """The ledger holds a step that the life's `TRANSITIONS` does not: the one error that needs a person."""

    code = "ledger.illegal_step"


class MalformedEntryError(GyrostatError):
    """The body of an entry, or of one that was to be written, is not what its kind holds."""

    code = "ledger.malformed"
