"""Files and environment become one declaration: overlaid, typed, each value with its origin, each mistake with its line."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gyrostat.config.declaration import Declaration, build
from gyrostat.config.fields import Each, Group, Mistake, Value
from gyrostat.config.grammar import GRAMMAR, SHIELDED
from gyrostat.errors import ConfigError, NotYetError, UsageError

PREFIX = "GYROSTAT_"
NOT_CONFIG = {"GYROSTAT_ENV", "GYROSTAT_DEBUG", "GYROSTAT_REQUIRE_SERVERS"}
UNCHANGED = "Nothing was changed."


@dataclass(frozen=True)
class Loaded:
    """A declaration and where it came from."""

    declaration: Declaration
    values: dict[str, Any]
    """Merged, defaults included, as written (units and all): JSON values."""
    origins: dict[str, str]
    """Key path -> `config/config.yaml:31`, `GYROSTAT_...` or `default`."""
    digest: str
    env: str
    project: Path
    state: Path


def project_root(start: Path) -> Path:
    """The folder with `config/config.yaml`, here or above.

    Raises:
        UsageError: there is none; says how to make one.
    """
    start = start.resolve()
    for folder in (start, *start.parents):
        if (folder / "config" / "config.yaml").is_file():
            return folder
    raise UsageError(
        f"No project here: {start} and the folders above have no config/config.yaml. "
        "Go into one, use --project DIR, or make one: gyrostat init DIR --data FILE --target COL"
    )


def load(project: Path, environ: Mapping[str, str] = os.environ) -> Loaded:
    """Read `config/config.yaml`, over it `config/<env>.yaml`, over that the environment.

    Raises:
        ConfigError: what, where, what is allowed, the nearest known key.
        NotYetError: the declaration asks for what a later release brings.
    """
    env = environ.get("GYROSTAT_ENV") or "dev"
    folder = project / "config"
    tree, origins = _file(project, folder / "config.yaml")
    overlay = folder / f"{env}.yaml"
    if overlay.is_file():
        more, places = _file(project, overlay)
        tree = _merge(tree, more)
        origins |= places
    elif env != "dev":
        found = ", ".join(sorted(p.name for p in folder.glob("*.yaml")))
        raise ConfigError(
            f"GYROSTAT_ENV={env}: there is no config/{env}.yaml. Found: {found}. {UNCHANGED}"
        )
    _environment(tree, origins, environ)
    values = _checked(GRAMMAR, tree, "", origins)
    digest = hashlib.sha256(
        json.dumps(values, sort_keys=True, ensure_ascii=False).encode()
    ).hexdigest()
    declaration = build_or_say(values, origins)
    return Loaded(declaration, values, origins, digest, env, project, project / ".gyrostat" / env)


def build_or_say(values: dict[str, Any], origins: Mapping[str, str]) -> Declaration:
    """Type the values; a contradiction between two keys is said like any other mistake."""
    try:
        return build(values)
    except Mistake as mistake:
        raise _error(str(mistake), mistake.key, origins, is_not_yet=mistake.is_not_yet) from None


def _file(project: Path, path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    from ruamel.yaml import YAML
    from ruamel.yaml.constructor import DuplicateKeyError
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    name = path.relative_to(project).as_posix()
    try:
        yaml = YAML(typ="rt", pure=True)
        tree = yaml.load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"There is no {name} in {project}.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{name} is not UTF-8. {UNCHANGED}") from None
    except DuplicateKeyError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise ConfigError(
            f"{name}:{line}  {str(error.problem).splitlines()[0]}. {UNCHANGED}"
        ) from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        raise ConfigError(
            f"{place}  This is no YAML: {error.problem or error.context}. {UNCHANGED}"
        ) from None
    except YAMLError as error:
        raise ConfigError(
            f"{name}  This is no YAML: {str(error).splitlines()[0]}. {UNCHANGED}"
        ) from None
    if tree is None:
        return {}, {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{name}:1  A mapping is needed (version: 1, models: ...). {UNCHANGED}")
    origins: dict[str, str] = {}
    return _plain(tree, name, "", origins), origins


def _plain(node: Any, name: str, path: str, origins: dict[str, str]) -> Any:
    """Ruamel's round-trip values as plain ones, noting the line of each key."""
    if isinstance(node, dict):
        result = {}
        for key, value in node.items():
            if not isinstance(key, str):
                key = str(key)
            below = f"{path}.{key}" if path else key
            lc = getattr(node, "lc", None)
            line = lc.data.get(key, [0])[0] + 1 if lc is not None and lc.data else 0
            origins[below] = f"{name}:{line}" if line else name
            result[key] = _plain(value, name, below, origins)
        return result
    if isinstance(node, list):
        return [_plain(v, name, f"{path}[{n}]", {}) for n, v in enumerate(node)]
    if isinstance(node, bool) or node is None:
        return node
    if isinstance(node, int):
        return int(node)
    if isinstance(node, float):
        return float(node)
    return str(node)


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = (
            _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
        )
    return merged


def _environment(tree: dict[str, Any], origins: dict[str, str], environ: Mapping[str, str]) -> None:
    from ruamel.yaml import YAML

    for variable in sorted(v for v in environ if v.startswith(PREFIX) and v not in NOT_CONFIG):
        node, grammar, path = tree, GRAMMAR, []
        parts = variable[len(PREFIX) :].split("__")
        for depth, part in enumerate(parts):
            known = (
                list(grammar.keys)
                if isinstance(grammar, Group)
                else list(node)
                if isinstance(node, dict)
                else []
            )
            key = next((k for k in known if k.lower() == part.lower()), None)
            if key is None and isinstance(grammar, Each) and depth == len(parts) - 1:
                key = part.lower()
            if key is None or not isinstance(grammar, (Group, Each)):
                raise ConfigError(
                    f"{variable}: there is no such setting{_nearest(part.lower(), known)} Keys here: "
                    f"{', '.join(sorted(known)) or 'none'}. {UNCHANGED}"
                )
            path.append(key)
            grammar = grammar.keys[key] if isinstance(grammar, Group) else grammar.item
            if depth < len(parts) - 1:
                node = node.setdefault(key, {})
                if not isinstance(node, dict):
                    raise ConfigError(
                        f"{variable}: {'.'.join(path)} holds {node!r}, not keys. {UNCHANGED}"
                    )
        dotted = ".".join(path)
        if not isinstance(grammar, Value):  # a mapping could carry what the shield below keeps out
            raise ConfigError(
                f"{variable}: {dotted} holds keys; a variable sets one value, as in {variable}__KEY. {UNCHANGED}"
            )
        if any(shield in dotted for shield in SHIELDED):
            raise ConfigError(
                f"{variable}: {dotted} is never set by an environment variable; write it in config/. {UNCHANGED}"
            )
        node[path[-1]] = YAML(typ="safe", pure=True).load(environ[variable])
        origins[dotted] = variable


def _nearest(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, 1, 0.6)
    return f'. Did you mean "{close[0]}"?' if close else "."


def _checked(grammar: Any, tree: Any, path: str, origins: dict[str, str]) -> Any:
    """The values with their defaults, each read once so that a mistake is found here and nowhere else."""
    if isinstance(grammar, Value):
        try:
            grammar.read(tree)
        except Mistake as mistake:
            raise _error(str(mistake), path, origins, is_not_yet=mistake.is_not_yet) from None
        return tree
    if isinstance(grammar, Group) and grammar.short and not isinstance(tree, dict):
        if not isinstance(tree, str):
            raise _error(
                f"{tree!r} is not allowed here. Allowed: a text, or keys: {', '.join(grammar.keys)}.",
                path,
                origins,
            )
        tree = grammar.short(tree)
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        keys = ", ".join(grammar.keys) if isinstance(grammar, Group) else grammar.names
        raise _error(f"{tree!r} is not allowed here; keys are needed: {keys}.", path, origins)
    if isinstance(grammar, Each):
        for name in tree:
            if not grammar.name(name):
                raise _error(
                    f"{name!r} is no name. Allowed: {grammar.names}.", f"{path}.{name}", origins
                )
        return {
            name: _checked(grammar.item, value, f"{path}.{name}", origins)
            for name, value in tree.items()
        }
    for key in tree:
        if key not in grammar.keys:
            below = f"{path}.{key}" if path else key
            message = f"there is no such key{_nearest(key, list(grammar.keys))}"
            raise _error(message, below, origins, keys=sorted(grammar.keys))
    result: dict[str, Any] = {}
    for key, item in grammar.keys.items():
        below = f"{path}.{key}" if path else key
        if key in tree and not (tree[key] is None and not isinstance(item, Value)):
            result[key] = _checked(item, tree[key], below, origins)
        elif isinstance(item, Value):
            if item.is_required:
                raise _error(
                    f"it is missing. Allowed: {item.allowed}.",
                    below,
                    origins | {below: origins.get(path, "config/config.yaml")},
                )
            if item.default is not None:
                result[key] = item.default
                origins.setdefault(below, "default")
        else:
            result[key] = _checked(item, {}, below, origins)
    return result


def _error(
    message: str,
    path: str,
    origins: Mapping[str, str],
    *,
    keys: list[str] | None = None,
    is_not_yet: bool = False,
) -> ConfigError:
    place = origins.get(path, "")
    parent = path
    while not place and "." in parent:
        parent = parent.rpartition(".")[0]
        place = origins.get(parent, "")
    listed = f"\nKeys here: {', '.join(keys)}. {UNCHANGED}" if keys else f" {UNCHANGED}"
    where = f"{place or 'config/config.yaml'}  {path}: " if path else ""
    facts = {"key": path, "at": place, **({"keys": keys} if keys else {})}
    if is_not_yet:
        raise NotYetError(f"{where}{message}{listed}", **facts)
    return ConfigError(f"{where}{message}{listed}", **facts)
