"""The configuration file: defaults of the global options, and named clusters (contexts).

```yaml
context: prod                  # unless --context or ETCSCHED_CONTEXT says otherwise
timeout: 10s                   # of all of them
contexts:
  prod: {endpoints: [etcd-1:2379, etcd-2:2379], user: anna, cacert: /etc/etcsched/ca.pem}
  demo: {endpoints: 127.0.0.1:2379}
```
"""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from etcsched.core.errors import UsageError
from etcsched.core.text import is_text
from etcsched.files import read_text

__all__ = [
    "PASSWORD",
    "ConfigFile",
    "choose_context",
    "choose_file",
    "complete_context",
    "read_config",
]

PASSWORD: Final = "etcsched.password"
"""In a click context's ``meta``: what the file says of it."""

_DEFAULT_FILE: Final = "~/.config/etcsched/config.yaml"
_OPTIONS: Final = ("endpoints", "prefix", "cacert", "cert", "key", "user", "password", "timeout")
_MAX_BYTES: Final = 1 << 20
_FILE, _CONTEXT = "etcsched.config_file", "etcsched.context"


class ConfigFile(msgspec.Struct, frozen=True, kw_only=True):
    """``current`` "": none is chosen."""

    path: Path
    options: dict[str, str] = {}
    contexts: dict[str, dict[str, str]] = {}
    current: str = ""

    def options_of(self, context: str) -> dict[str, str]:
        """Its own, and those of all contexts that it doesn't say itself."""
        return {**self.options, **(self.contexts[context] if context else {})}


def choose_file(ctx: click.Context, _param: click.Parameter, given: str | None) -> str | None:
    ctx.meta[_FILE] = given
    _apply(ctx)
    return given


def choose_context(ctx: click.Context, _param: click.Parameter, given: str | None) -> str | None:
    ctx.meta[_CONTEXT] = given
    _apply(ctx)
    return given


def complete_context(ctx: click.Context, _param: click.Parameter, begun: str) -> list[str]:
    try:
        file = read_config(ctx.params.get("config"), None, is_checked=False)
    except UsageError:
        return []
    return [name for name in file.contexts if name.startswith(begun)]


def _apply(ctx: click.Context) -> None:
    """Once both are known, in whichever order they came: the file's entries are the options'
    defaults."""
    if _FILE not in ctx.meta or _CONTEXT not in ctx.meta:
        return
    file = read_config(ctx.meta[_FILE], ctx.meta[_CONTEXT])
    entries = file.options_of(file.current)
    ctx.meta[PASSWORD] = entries.pop("password", None)
    ctx.default_map = entries


def read_config(given: str | None, context: str | None, *, is_checked: bool = True) -> ConfigFile:
    """With ``context`` as the current one, if it is given. Unchecked, it needn't be there."""
    path = _expanded(given or _DEFAULT_FILE)
    try:
        text = read_text(path, _MAX_BYTES)
    except FileNotFoundError:
        if given is not None:
            raise UsageError(f"--config {path}: no such file") from None
        file = ConfigFile(path=path)
    except OSError as error:
        raise UsageError(f"configuration file {path}: can't be read: {error.strerror}") from None
    else:
        file = _parse(path, text)
    if context:
        file = msgspec.structs.replace(file, current=context)
    if is_checked and file.current and file.current not in file.contexts:
        near = get_close_matches(file.current, file.contexts, n=1)
        known = ", ".join(file.contexts) or "none"
        hint = f"did you mean {near[0]}?" if near else f"it has {known}"
        raise UsageError(f"configuration file {path}: no context {file.current!r}; {hint}")
    return file


def _expanded(name: str) -> Path:
    """A user without a name may have no home either: then nothing is there."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)


def _parse(path: Path, text: str) -> ConfigFile:
    loaded = _loaded(path, text)
    contexts = loaded.pop("contexts", None) or {}
    current = loaded.pop("context", None) or ""
    if not isinstance(contexts, dict) or not all(isinstance(c, dict) for c in contexts.values()):
        raise UsageError(
            f"configuration file {path}: contexts must be a map like prod: {{endpoints: host:2379}}"
        )
    return ConfigFile(
        path=path,
        options=_options(path, loaded, ("context", "contexts")),
        contexts={str(name): _options(path, entries) for name, entries in contexts.items()},
        current=str(current),
    )


def _loaded(path: Path, text: str) -> dict[Any, Any]:
    from ruamel.yaml.constructor import DuplicateKeyError
    from ruamel.yaml.error import YAMLError

    from etcsched.jobfile.nodes import flaw_of, reader

    try:
        loaded = reader().load(text)
    except (YAMLError, RecursionError) as error:
        line, why = flaw_of(error)
        if isinstance(error, DuplicateKeyError):
            why = "a key is given twice"  # Its own words have the values: one may be a password.
        raise UsageError(f"configuration file {path}: line {line}: {why}") from None
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise UsageError(f"configuration file {path}: must be a map like endpoints: host:2379")
    return loaded


def _options(path: Path, entries: dict[Any, Any], also: tuple[str, ...] = ()) -> dict[str, str]:
    unknown = [str(name) for name in entries if name not in _OPTIONS]
    if unknown:
        raise UsageError(
            f"configuration file {path}: unknown {', '.join(unknown)}; known are "
            f"{', '.join((*_OPTIONS, *also))}"
        )
    options = {
        name: ",".join(map(str, value)) if isinstance(value, list) else str(value)
        for name, value in entries.items()
    }
    for name, value in options.items():
        if not is_text(value):
            raise UsageError(f"configuration file {path}: {name}: {value!a} isn't text")
    return options
