"""Files and environment become one declaration: overlaid, typed, each value with its origin, each mistake with its line."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gyrostat.config.declaration import Declaration, build
from gyrostat.config.document import UNCHANGED, parse
from gyrostat.config.fields import Each, Group, Mistake, Value, nearest, shown
from gyrostat.config.grammar import GRAMMAR, SHIELDED, is_model_name
from gyrostat.errors import ConfigError, NotYetError, UsageError

PREFIX = "GYROSTAT_"
NOT_CONFIG = {
    "GYROSTAT_ENV",
    "GYROSTAT_DEBUG",
    "GYROSTAT_REQUIRE_SERVERS",
    "GYROSTAT_SOCKETS",
    "GYROSTAT_UP",
    "GYROSTAT_TOKEN",
    "GYROSTAT_HOST",
}
MAIN = "config/config.yaml"
NO_ENVIRONMENTS = {"config", "checks"}
"""Files in `config/` that are no overlay."""


@dataclass(frozen=True)
class Loaded:
    """A declaration and where it came from."""

    declaration: Declaration
    values: dict[str, Any]
    """Merged, defaults included, as written (units and all): JSON values."""
    origins: dict[str, str]
    """Key path -> `config/config.yaml:31`, `GYROSTAT_...` or `default`."""
    digest: str
    """SHA-256 of the canonical JSON of `values`."""
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
        UsageError: there is no `config/config.yaml`.
    """
    env = _env(project, environ)
    tree, origins = _file(project, MAIN)
    overlay = f"config/{env}.yaml"
    if (project / overlay).exists():
        over, places = _file(project, overlay)
        _check_models(tree, over, places)
        tree = _merge(tree, over)
        origins |= places
    _environment(tree, origins, environ)
    values = _checked(GRAMMAR, tree, "", origins)
    declaration = _build_or_say(values, origins)
    return Loaded(
        declaration,
        values,
        {path: place for path, place in origins.items() if _is_there(values, path)},
        digest_of(values),
        env,
        project,
        project / ".gyrostat" / env,
    )


def from_values(values: dict[str, Any]) -> Declaration:
    """A declaration from merged values, as `Loaded.values` holds them; keys that came later get their defaults.

    Raises:
        ConfigError: they are not what a declaration holds.
    """
    return _build_or_say(_checked(GRAMMAR, _full(GRAMMAR, values), "", {}), {})


def digest_of(values: dict[str, Any]) -> str:
    """What identifies merged values: the SHA-256 of their canonical JSON."""
    canonical = json.dumps(values, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _build_or_say(values: dict[str, Any], origins: Mapping[str, str]) -> Declaration:
    try:
        return build(values)
    except Mistake as mistake:
        raise _error(str(mistake), mistake.key, origins, is_not_yet=mistake.is_not_yet) from None


def _env(project: Path, environ: Mapping[str, str]) -> str:
    env = environ.get("GYROSTAT_ENV") or "dev"
    found = sorted(
        p.stem for p in (project / "config").glob("*.yaml") if p.stem not in NO_ENVIRONMENTS
    )
    if env == "dev" or env in found:
        return env
    why = (
        f"there is no config/{env}.yaml"
        if is_model_name(env) and env not in NO_ENVIRONMENTS
        else f"{shown(env)} is no name of an environment"
    )
    known = ", ".join(f"{name}.yaml" for name in found) or "none"
    raise ConfigError(
        f"GYROSTAT_ENV={env}: {why}.{nearest(env, (*found, 'dev'))} Found in config/: {known}. {UNCHANGED}",
        env=env,
        found=found,
    )


def _file(project: Path, name: str) -> tuple[dict[str, Any], dict[str, str]]:
    try:
        text = (project / name).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UsageError(
            f"There is no {name} in {project}. Make a project: gyrostat init DIR --data FILE --target COL"
        ) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"{name}:{line}  This is not UTF-8: the byte 0x{error.object[error.start]:02x}. "
            f"Save it as UTF-8. {UNCHANGED}",
            at=f"{name}:{line}",
        ) from None
    except OSError as error:
        raise ConfigError(f"{name} cannot be read: {error.strerror}. {UNCHANGED}") from None
    document = parse(text, name)
    if document.values is None:
        return {}, {}
    if not isinstance(document.values, dict):
        raise ConfigError(
            f"{name}:1  {shown(document.values)} is not allowed here; keys are needed: "
            f"{', '.join(GRAMMAR.keys)}. {UNCHANGED}",
            at=f"{name}:1",
        )
    return _full(GRAMMAR, document.values), document.places


def _full(grammar: Any, tree: Any) -> Any:
    """Short forms written out, so that an overlay can add to what the file below wrote in short."""
    if isinstance(grammar, Group) and grammar.short and not isinstance(tree, dict):
        # Other kinds of values are left to the reader, which says what is allowed.
        return {grammar.short: tree} if isinstance(tree, str) else tree
    if not isinstance(tree, dict) or isinstance(grammar, Value):
        return tree
    if isinstance(grammar, Each):
        return {name: _full(grammar.item, value) for name, value in tree.items()}
    return {
        key: _full(grammar.keys[key], value) if key in grammar.keys else value
        for key, value in tree.items()
    }


def _check_models(tree: dict[str, Any], over: dict[str, Any], places: Mapping[str, str]) -> None:
    known, named = tree.get("models"), over.get("models")
    for model in named if isinstance(named, dict) else ():
        if isinstance(known, dict) and model not in known:
            raise _error(
                f"{MAIN} has no such model.{nearest(model, known)} An environment changes models, it adds none. "
                f"Models there: {', '.join(known) or 'none'}.",
                f"models.{model}",
                places,
            )


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = (
            _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
        )
    return merged


def _environment(tree: dict[str, Any], origins: dict[str, str], environ: Mapping[str, str]) -> None:
    for variable in sorted(v for v in environ if v.startswith(PREFIX) and v not in NOT_CONFIG):
        path = _path_of(variable, tree)
        dotted = ".".join(path)
        # Shielded by the path that is reached, however it is spelled: only single values can be set at all.
        if SHIELDED.fullmatch(dotted):
            raise ConfigError(
                f"{variable}: {dotted} is never set by an environment variable: who decides is read from files, "
                f"which have a history. Write it in config/. {UNCHANGED}",
                key=dotted,
                at=variable,
            )
        value = parse(environ[variable], variable).values
        node = tree
        for n, key in enumerate(path[:-1], start=1):
            below = node.get(key)
            if below is None:
                below = node[key] = {}
            if not isinstance(below, dict):
                raise _error(
                    f"{shown(below)} is not allowed here; keys are needed.",
                    ".".join(path[:n]),
                    origins,
                )
            node = below
        node[path[-1]] = value
        for stale in [p for p in origins if p.startswith((f"{dotted}.", f"{dotted}["))]:
            del origins[stale]
        origins[dotted] = variable


def _path_of(variable: str, tree: dict[str, Any]) -> list[str]:
    """The keys that a variable's name means; names of the user's own are those of the files."""
    parts = variable.removeprefix(PREFIX).split("__")
    path: list[str] = []
    grammar: Any = GRAMMAR
    node: Any = tree
    for n, part in enumerate(parts):
        if isinstance(grammar, Value):
            if grammar.schema.get("type") == "object":
                own = node if isinstance(node, dict) else {}
                return [*path, _spelled(own, "__".join(parts[n:])) or "__".join(parts[n:]).lower()]
            raise _unknown(variable, f"{'.'.join(path)} is a single value", ())
        own = node if isinstance(node, dict) else {}
        known = grammar.keys if isinstance(grammar, Group) else (*own, *grammar.known)
        key = _spelled(known, part)
        if key is None:
            where = f" under {'.'.join(path)}" if path else ""
            hint = nearest(part, known)
            if not hint:
                variables = (*_variables(GRAMMAR, tree, PREFIX[:-1]), *NOT_CONFIG)
                same_end = [v for v in variables if v.endswith(f"_{parts[-1].upper()}")]
                hint = nearest(variable, same_end) or nearest(variable, variables)
            raise _unknown(
                variable, f"there is no setting {shown(part.lower())}{where}.{hint}", known
            )
        path.append(key)
        grammar = grammar.keys[key] if isinstance(grammar, Group) else grammar.item
        node = own.get(key)
    if isinstance(grammar, Group) and grammar.short:
        return [*path, grammar.short]
    if not isinstance(grammar, Value):
        known = grammar.keys if isinstance(grammar, Group) else node or grammar.known
        raise _unknown(variable, f"{'.'.join(path)} holds keys; name one of them, after __", known)
    return path


def _spelled(known: Any, part: str) -> str | None:
    """The key that is meant: case does not count, nor whether a name has - or _, which few shells allow in names."""

    def plain(name: str) -> str:
        return name.lower().replace("-", "_")

    found = [k for k in dict.fromkeys(known) if k == part]
    found = found or [k for k in dict.fromkeys(known) if plain(k) == plain(part)]
    return found[0] if len(found) == 1 else None


def _variables(grammar: Any, tree: Any, name: str) -> Iterator[str]:
    """The variables that could have been meant."""
    own = tree if isinstance(tree, dict) else {}
    if isinstance(grammar, Value):
        yield name
    elif isinstance(grammar, Each):
        for key in dict.fromkeys((*own, *grammar.known)):
            yield from _variables(grammar.item, own.get(key), f"{name}__{key.upper()}")
    else:
        glue = "_" if grammar is GRAMMAR else "__"
        for key, item in grammar.keys.items():
            yield from _variables(item, own.get(key), f"{name}{glue}{key.upper()}")


def _unknown(variable: str, why: str, known: Any) -> ConfigError:
    listed = f" Keys here: {', '.join(sorted(set(known)))}." if known else ""
    end = "" if why.endswith(("?", ".")) else "."
    example = f" In the manner of {PREFIX}SERVER__PORT=9000." if not listed else ""
    return ConfigError(f"{variable}: {why}{end}{listed}{example} {UNCHANGED}", at=variable)


def _checked(grammar: Any, tree: Any, path: str, origins: dict[str, str]) -> Any:
    """The values with their defaults, each read once so that a mistake is found here and nowhere else."""
    if isinstance(grammar, Value):
        try:
            grammar.read(tree)
        except Mistake as mistake:
            raise _error(str(mistake), path, origins, is_not_yet=mistake.is_not_yet) from None
        return tree
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise _error(_keys_needed(grammar, tree), path, origins)
    if isinstance(grammar, Each):
        return {
            name: _checked(grammar.item, value, f"{path}.{name}", origins)
            for name, value in _named(grammar, tree, path, origins)
        }
    for key in tree:
        below = f"{path}.{key}" if path else key
        if key in grammar.later:
            message = f"this key is not there yet. {grammar.later[key]}"
            raise _error(message, below, origins, is_not_yet=True)
        if key not in grammar.keys:
            message = f"there is no such key.{nearest(key, grammar.keys)}"
            raise _error(message, below, origins, keys=sorted(grammar.keys))
    result: dict[str, Any] = {}
    for key, item in grammar.keys.items():
        below = f"{path}.{key}" if path else key
        if key in tree:
            result[key] = _checked(item, tree[key], below, origins)
        elif not isinstance(item, Value):
            result[key] = _checked(item, {}, below, origins)
        elif item.is_required:
            message = f"it is missing: {item.help}. Allowed: {item.allowed}."
            raise _error(message, below, origins)
        elif item.default is not None:
            result[key] = item.default
            origins.setdefault(below, "default")
    return result


def _named(
    grammar: Each, tree: dict[str, Any], path: str, origins: dict[str, str]
) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        is_known = (
            name in grammar.known
            if grammar.known
            else re.fullmatch(grammar.pattern, name, re.DOTALL)
        )
        if not is_known:
            what = "there is no such metric." if grammar.known else f"{shown(name)} is no name."
            what = grammar.elsewhere.get(name) or what + nearest(name, grammar.known)
            message = f"{what} Allowed: {grammar.names}."
            raise _error(message, f"{path}.{name}", origins)
        yield name, value


def _keys_needed(grammar: Any, tree: Any) -> str:
    keys = ", ".join(grammar.keys) if isinstance(grammar, Group) else grammar.names
    if isinstance(grammar, Group) and grammar.short:
        allowed = grammar.keys[grammar.short].allowed
        return f"{shown(tree)} is not allowed here. Allowed: {allowed}, or keys: {keys}."
    return f"{shown(tree)} is not allowed here; keys are needed: {keys}."


def _error(
    message: str,
    path: str,
    origins: Mapping[str, str],
    *,
    keys: list[str] | None = None,
    is_not_yet: bool = False,
) -> ConfigError | NotYetError:
    place, parent = origins.get(path, ""), path
    while (not place or place == "default") and parent:
        parent = _above(parent)
        place = origins.get(parent, "")
    place = place if place and place != "default" else MAIN
    # A message that ends with a command to paste gets no words behind it.
    gap = " " if message.endswith((".", "?")) else "\n"
    listed = f"\nKeys here: {', '.join(keys)}. {UNCHANGED}" if keys else f"{gap}{UNCHANGED}"
    where = f"{place}  {path}: " if path else f"{place}  "
    facts = {"key": path, "at": place, **({"keys": keys} if keys else {})}
    kind = NotYetError if is_not_yet else ConfigError
    return kind(f"{where}{message}{listed}", **facts)


def _above(path: str) -> str:
    """The key path one level up; column names may hold dots, which only makes this take more steps."""
    return path[: max(path.rfind("."), path.rfind("["), 0)]


def _is_there(values: Any, path: str) -> bool:
    """Whether a key path leads to a value; a key that an overlay took away has an origin no more."""
    if not path:
        return True
    if isinstance(values, dict):
        return any(
            path == key
            or (
                path.startswith((f"{key}.", f"{key}["))
                and _is_there(values[key], path[len(key) :].lstrip("."))
            )
            for key in values
        )
    if isinstance(values, list):
        head, _, rest = path[1:].partition("]")
        return (
            head.isdigit()
            and int(head) < len(values)
            and _is_there(values[int(head)], rest.lstrip("."))
        )
    return False
