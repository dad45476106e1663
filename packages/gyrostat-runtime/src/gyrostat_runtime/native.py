"""The process of a native model: loads it, answers frames, ends with its parent.

Run by path, `python native.py <folder> <socket fd> <lifeline fd>`, by whatever interpreter has the model's libraries;
so it needs the standard library alone, and pandas and cloudpickle only as the model does.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import select
import signal
import socket
import struct
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

_HEAD = struct.Struct("!IQQ")


def main() -> None:
    """Load, say so, answer until the parent is gone."""
    folder, link = Path(sys.argv[1]), socket.socket(fileno=int(sys.argv[2]))
    _end_with_parent(int(sys.argv[3]))
    # What the model prints is talk, and must not look like somebody's output.
    os.dup2(2, 1)
    hello, _, _ = _receive(link)
    try:
        model = _Model(folder, hello)
    except BaseException as error:  # noqa: BLE001 - a model may raise anything, sys.exit too
        _send(link, _told(error))
        return
    _send(link, {"ready": True})
    while True:
        head, num, text = _receive(link)
        try:
            answer = model.answer(head["n"], num, text)
        except BaseException as error:  # noqa: BLE001 - as above
            _send(link, _told(error))
        else:
            _send(link, {}, answer)


class _Model:
    def __init__(self, folder: Path, hello: dict[str, Any]) -> None:
        # This file's own folder would shadow modules of the project.
        own = Path(__file__).resolve().parent
        sys.path[:] = [p for p in sys.path if not p or Path(p).resolve() != own]
        raw = b""
        for name, digest in hello["files"].items():
            data = (folder / name).read_bytes()
            if hashlib.sha256(data).hexdigest() != digest:
                raise RuntimeError(f"{name} is not the file that was signed")
            raw = data if name == "model.pkl" else raw
        sys.path.insert(0, str(folder / "code"))
        import pickle

        # The model's process exists so that this is safe to do: the bundle was verified, and nothing else runs here.
        self._estimator = pickle.loads(raw)  # noqa: S301
        self._features = [name for name, _ in hello["features"]]
        self._is_text = [is_text for _, is_text in hello["features"]]
        self._classes: list[str] = hello["classes"]
        self._class_kind: str = hello["class_kind"]
        self._has_names = hasattr(self._estimator, "feature_names_in_")
        self._takes_array: bool | None = False if self._has_names else None

    def answer(self, n: int, num: bytes, text: bytes) -> bytes:
        import numpy as np

        k = self._is_text.count(False)
        numbers = np.frombuffer(num, "<f8").reshape(n, k) if k else np.empty((n, 0))
        texts = json.loads(text) if text else [[] for _ in range(n)]
        with warnings.catch_warnings():
            # A model that was fitted on an array says this of every frame.
            warnings.filterwarnings("ignore", "X has feature names")
            return self._predict(numbers, texts)

    def _predict(self, numbers: Any, texts: list[list[str]]) -> bytes:
        if self._takes_array:
            return self._scores(self._array(numbers, texts))
        try:
            answer = self._scores(self._frame(numbers, texts))
        except Exception:
            if self._takes_array is None:
                answer = self._scores(self._array(numbers, texts))
                self._takes_array = True
                return answer
            raise
        self._takes_array = False
        return answer

    def _frame(self, numbers: Any, texts: list[list[str]]) -> Any:
        import numpy as np
        import pandas as pd

        columns: dict[str, Any] = {}
        i = j = 0
        for name, is_text in zip(self._features, self._is_text, strict=True):
            if is_text:
                cells = np.empty(len(texts), dtype=object)
                cells[:] = [row[j] for row in texts]
                columns[name] = pd.Series(cells, dtype=object)
                j += 1
            else:
                columns[name] = numbers[:, i]
                i += 1
        return pd.DataFrame(columns, index=range(len(texts)))

    def _array(self, numbers: Any, texts: list[list[str]]) -> Any:
        if not any(self._is_text):
            return numbers
        import numpy as np

        out = np.empty((len(texts), len(self._features)), dtype=object)
        i = j = 0
        for place, is_text in enumerate(self._is_text):
            if is_text:
                out[:, place] = [row[j] for row in texts]
                j += 1
            else:
                out[:, place] = numbers[:, i]
                i += 1
        return out

    def _scores(self, X: Any) -> bytes:
        import numpy as np

        n = len(X)
        if not self._classes:
            values = np.asarray(self._estimator.predict(X), dtype="<f8").reshape(-1)
            return values.tobytes()
        out = np.zeros((n, len(self._classes)), dtype="<f8")
        if hasattr(self._estimator, "predict_proba"):
            proba = np.asarray(self._estimator.predict_proba(X), dtype="<f8")
            out[:, self._places(_labels(self._estimator.classes_))] = proba
            return out.tobytes()
        predicted = _labels(self._estimator.predict(X))
        if hasattr(self._estimator, "classes_"):
            own = _labels(self._estimator.classes_)
            place = dict(zip(own, self._places(own), strict=True))
            out[np.arange(n), [place[label] for label in predicted]] = 1.0
        else:
            out[np.arange(n), self._places(predicted)] = 1.0
        return out.tobytes()

    def _places(self, labels: list[Any]) -> list[int]:
        """Where each of the model's labels stands among the classes in the file's spelling."""
        found = [self._place(label) for label in labels]
        if None not in found:
            return found  # type: ignore[return-value]
        if labels == list(range(len(self._classes))):
            # Codes of a label encoder: the schema's classes were put in their order when the model was packed.
            return labels
        stranger = labels[found.index(None)]
        raise ValueError(
            f"the model answers a class that its schema does not have: {stranger!r:.80}"
        )

    def _place(self, label: Any) -> int | None:
        for place, text in enumerate(self._classes):
            if text == str(label):
                return place
            with contextlib.suppress(ValueError, TypeError):
                if self._class_kind in ("integer", "number") and float(text) == float(label):
                    return place
                if self._class_kind == "boolean" and _truth(text) == _truth(label):
                    return place
        return None


def _labels(array: Any) -> list[Any]:
    import numpy as np

    return np.asarray(array).reshape(-1).tolist()


def _truth(value: Any) -> bool:
    return str(value).strip().lower() in ("true", "1", "1.0")


def _told(error: BaseException) -> dict[str, str]:
    lines = str(error).strip().splitlines() or [""]
    return {"kind": type(error).__name__, "error": lines[0][:300]}


def _send(link: socket.socket, head: dict[str, Any], num: bytes = b"") -> None:
    raw = json.dumps(head).encode()
    link.sendall(_HEAD.pack(len(raw), len(num), 0) + raw + num)


def _receive(link: socket.socket) -> tuple[dict[str, Any], bytes, bytes]:
    n_json, n_num, n_text = _HEAD.unpack(_exactly(link, _HEAD.size))
    head = json.loads(_exactly(link, n_json))
    return head, _exactly(link, n_num), _exactly(link, n_text)


def _exactly(link: socket.socket, size: int) -> bytes:
    pieces = bytearray()
    while len(pieces) < size:
        piece = link.recv(min(size - len(pieces), 1 << 20))
        if not piece:
            os._exit(0)  # the parent is gone; nobody waits for an orderly end
        pieces += piece
    return bytes(pieces)


def _end_with_parent(lifeline: int) -> None:
    """Die when the parent's end of the pipe closes, also in the middle of a call."""
    # The kernel's signal reaches a model that hangs in C code and holds the interpreter; where it has no such
    # signal (or the model took it for itself), the thread does it as soon as the interpreter is free.
    if sys.platform == "linux":
        signal.signal(signal.SIGIO, signal.SIG_DFL)
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
        flags = fcntl.fcntl(lifeline, fcntl.F_GETFL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, flags | os.O_ASYNC)

    def watch() -> None:
        select.select([lifeline], [], [])
        os._exit(0)

    threading.Thread(target=watch, daemon=True, name="lifeline").start()


if __name__ == "__main__":
    main()
