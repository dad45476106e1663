"""One YAML 1.2 text as plain values, with the place of each key and list item; what is no YAML is said with its place."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

from gyrostat.config.fields import shown
from gyrostat.errors import ConfigError

UNCHANGED = "Nothing was changed."
MAX_DEPTH = 32
MAX_NODES = 20_000
_TAG = "tag:yaml.org,2002:"


@dataclass
class Document:
    """What stands in one file or variable."""

    name: str
    """As a person would write it: `config/config.yaml`, `GYROSTAT_SERVER__PORT`."""
    values: Any = None
    places: dict[str, str] = field(default_factory=dict)
    """Key path -> `config/config.yaml:31`; items of lists as `steps[2]`."""


def parse(text: str, name: str) -> Document:
    """Read one document.

    Raises:
        ConfigError: it is no YAML, a key stands twice, or it nests without end; with line and column.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    reader = _Reader(name)
    try:
        # Composed, not loaded: the nodes know their lines, and nothing is constructed that we do not construct ourselves.
        root = YAML(typ="safe", pure=True).compose(text)
        return Document(name, None if root is None else reader.read(root, ""), reader.places)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        said = " ".join(str(part) for part in (error.context, error.problem) if part)
        raise _not_yaml(place, said) from None
    except YAMLError as error:
        raise _not_yaml(name, str(error).splitlines()[0]) from None
    except RecursionError:
        raise _not_yaml(name, f"it nests deeper than {MAX_DEPTH} levels") from None


def _not_yaml(place: str, said: str) -> ConfigError:
    return ConfigError(f"{place}  This is no YAML: {said}. {UNCHANGED}", at=place)


class _Reader:
    def __init__(self, name: str) -> None:
        self.name = name
        self.places: dict[str, str] = {}
        self.n_nodes = 0

    def read(self, node: Any, path: str, depth: int = 0) -> Any:
        self.n_nodes += 1
        # Aliases are followed, so a few lines could stand for billions of values, or for themselves.
        if depth > MAX_DEPTH or self.n_nodes > MAX_NODES:
            raise _not_yaml(
                self._at(node), f"it nests deeper than {MAX_DEPTH} levels or holds too much"
            )
        if node.id == "mapping":
            return self._mapping(node, path, depth)
        if node.id == "sequence":
            items = []
            for n, item in enumerate(node.value):
                below = f"{path}[{n}]"
                self.places[below] = self._at(item)
                items.append(self.read(item, below, depth + 1))
            return items
        return self._scalar(node)

    def _mapping(self, node: Any, path: str, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            if str(key_node.tag) == f"{_TAG}merge":
                raise _not_yaml(self._at(key_node), "<< is of YAML 1.1; write the keys out")
            if key_node.id != "scalar":
                raise _not_yaml(self._at(key_node), "a key is a text")
            key = key_node.value
            line = key_node.start_mark.line + 1
            if key in found:
                place = f"{self.name}:{line}"
                raise ConfigError(
                    f"{place}  {f'{path}.' if path else ''}{key}: this key stands in line {lines[key]} already. "
                    f"One of the two counts: delete the other. {UNCHANGED}",
                    at=place,
                )
            below = f"{path}.{key}" if path else key
            lines[key] = line
            self.places[below] = f"{self.name}:{line}"
            found[key] = self.read(value_node, below, depth + 1)
        return found

    def _scalar(self, node: Any) -> Any:
        tag, text = str(node.tag).removeprefix(_TAG), node.value
        match tag:
            case "str" | "timestamp":
                return text
            case "null":
                return None
            case "bool":
                return text.lower() == "true"
            case "int":
                return _whole(text)
            case "float":
                number = _float(text)
                # JSON has no such numbers, and no key of a declaration can mean one.
                if not math.isfinite(number):
                    raise _not_yaml(self._at(node), f"{text} is no number that can be meant here")
                return number
        raise _not_yaml(
            self._at(node), f"the tag {node.tag} on {shown(text)} is unknown; write the value alone"
        )

    def _at(self, node: Any) -> str:
        return f"{self.name}:{node.start_mark.line + 1}"


def _whole(text: str) -> int | str:
    plain = text.replace("_", "").lower()
    if len(plain) > 40:
        return text  # no key holds such a number: it is shown as it stands, and refused there
    return int(plain, 0) if re.match(r"[+-]?0[box]", plain) else int(plain)


def _float(text: str) -> float:
    plain = text.replace("_", "").lower()
    return float(re.sub(r"^([+-]?)\.(inf|nan)$", r"\1\2", plain))
