"""What can go wrong where predictions are made: a bundle, an input, or the model itself."""

from __future__ import annotations

from typing import Any, ClassVar


class RuntimeFault(Exception):
    """The base of all. `message` is one sentence for a person; it never holds a value of a personal column."""

    code: str = "runtime"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # Faults cross process boundaries: rebuild from fields, not from a formatted message.
        return _rebuild, (type(self), vars(self))


class BundleFault(RuntimeFault):
    """A bundle is truncated, altered, unsigned, signed by a key that is not trusted here, or cannot be loaded."""

    code: str = "bundle"

    def __init__(self, message: str, *, code: str = "bundle", file: str = "") -> None:
        super().__init__(message)
        self.code = code
        """`bundle.missing`, `.altered`, `.truncated`, `.unsigned`, `.untrusted`, `.malformed`, `.not_loadable`."""
        self.file = file
        """The file in the bundle that the fault is in, if it is in one."""


class InputFault(RuntimeFault):
    """A request that the model cannot answer: the caller's fault, with the place of it.

    `at` is a JSON path in the body as it was sent, such as `$.dataframe_records[1].rooms`; empty where the fault has
    no place in the body. `str(fault)` is the message alone.
    """

    code: str = "serving.invalid"

    def __init__(
        self, message: str, *, code: str = "serving.invalid", at: str = "$", status: int = 400
    ) -> None:
        super().__init__(message)
        self.code = code
        self.at = at
        self.status = status
        """HTTP status: 400, 413 or 415."""


class ModelFault(RuntimeFault):
    """The model itself failed: it raised, answered with nonsense, or its process died or hung."""

    code: str = "model"
    retryable: ClassVar[bool] = True

    def __init__(self, message: str, *, code: str = "model") -> None:
        super().__init__(message)
        self.code = code
        """`model.failed`, `model.not_finite`, `model.died`, `model.timeout`, `model.memory`, `model.closed`."""


def _rebuild(kind: type[RuntimeFault], fields: dict[str, Any]) -> RuntimeFault:
    fault = kind(fields["message"])
    vars(fault).update(fields)
    return fault
