"""Where run folders go, and where ptx keeps its notes about them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from orchestrator.errors import UserError

DEFAULT = "ptx-runs"
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def runs_root(option: str | None = None, environ: Mapping[str, str] = os.environ) -> Path:
    """The folder that holds the run folders: `option`, else $PTX_RUNS, else `runs` in the
    config file, else ./ptx-runs. Absolute; it need not exist. Raises UserError."""
    text = option or environ.get("PTX_RUNS") or _configured(environ) or DEFAULT
    return absolute(text, "the folder for runs")


def absolute(text: str, what: str) -> Path:
    """An absolute path without `..`, symbolic links kept: the name a shared disk has elsewhere.

    Raises UserError for control characters, which no batch script carries faithfully, and for
    the home of somebody who is unknown here.
    """
    if _CONTROL.search(text):
        raise UserError(
            f"The path of {what}, {text!r}, holds a control character.",
            hint="Choose a path without newlines, tabs and the like.",
        )
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:
        raise UserError(
            f"The path of {what}, {text!r}, begins with a home directory that is unknown here.",
            hint="Write the path out, from / on.",
        ) from error
    return Path(os.path.abspath(path))  # noqa: PTH100 - resolve() follows links


def config_file(environ: Mapping[str, str] = os.environ) -> Path:
    return _xdg(environ, "XDG_CONFIG_HOME", ".config") / "ptx" / "config.yaml"


def registry_folder(environ: Mapping[str, str] = os.environ) -> Path:
    return _xdg(environ, "XDG_STATE_HOME", ".local/state") / "ptx" / "runs"


def index_folder(environ: Mapping[str, str] = os.environ) -> Path:
    return registry_folder(environ).with_name("index")


def _xdg(environ: Mapping[str, str], name: str, default: str) -> Path:
    # The XDG base directory specification tells to ignore relative values.
    value = environ.get(name, "")
    return Path(value) if value.startswith("/") else _home() / default


def _home() -> Path:
    """Under a user number without an account and without HOME, as in containers, there is none:
    then nothing is read there, nothing can be written, and runs are found in their root."""
    try:
        return Path.home()
    except RuntimeError:
        return Path("/dev/null")


def _configured(environ: Mapping[str, str]) -> str | None:
    path = config_file(environ)
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The config file {path} cannot be read: {error}.") from error
    import yaml

    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"The config file {path} is not YAML: {error}.") from error
    if config is None:
        return None
    runs = config.get("runs") if isinstance(config, dict) else config
    if not isinstance(config, dict) or not isinstance(runs, str | None):
        raise UserError(
            f"The config file {path} should hold one line such as `runs: /shared/runs`."
        )
    return runs
