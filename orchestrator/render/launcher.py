"""The launcher of a plan, asked for its command, environment and files."""

from __future__ import annotations

from collections.abc import Sequence

from launchers import registry
from launchers.deepspeed_config import NAME, deepspeed_json
from launchers.facts import Launch, Launcher
from orchestrator.errors import UserError
from orchestrator.plan.plan import Plan
from orchestrator.render.bundle import BundleFile
from orchestrator.render.facts import facts
from orchestrator.render.quoting import refuse_control_characters


def launch(plan: Plan, extra_args: Sequence[str]) -> tuple[Launch, tuple[BundleFile, ...]]:
    """Raise UserError for an unknown launcher and for flags that belong to ptx."""
    launcher = _find(plan.launcher)
    check_flags(launcher, extra_args)
    told = facts(plan, tuple(extra_args))
    result = launcher.render(told)
    files = dict(result.files)
    if told.strategy == "zero":
        # Whichever launcher starts it, the entrypoint hands this file to deepspeed.initialize.
        files[NAME] = deepspeed_json(told)
    return result, tuple(BundleFile(name, files[name]) for name in sorted(files))


def check_flags(launcher: Launcher, args: Sequence[str]) -> None:
    """Raise UserError where `args` repeat what ptx sets or would be taken for the script."""
    owned = {_plain(flag): flag for flag in launcher.owned_flags}
    takes_value = False
    for arg in args:
        refuse_control_characters(arg)
        if not arg.startswith("-") or arg in ("-", "--"):
            if not takes_value:
                raise UserError(
                    f"launcher.args has {arg!r} where {launcher.name} expects a flag",
                    hint="give each flag its value as --flag=value",
                )
            takes_value = False
            continue
        given = _plain(arg)
        # argparse takes any unambiguous beginning of a long flag for the flag itself.
        for plain, flag in owned.items():
            if given == plain or (arg.startswith("--") and plain.startswith(given)):
                raise UserError(
                    f"launcher.args has {arg!r}, but {flag} is set by ptx from the spec",
                    hint="leave it out; resources and rendezvous say the same",
                )
        takes_value = "=" not in arg


def _plain(flag: str) -> str:
    name = flag.partition("=")[0]
    return "--" + name[2:].replace("-", "_") if name.startswith("--") else name


def _find(name: str) -> Launcher:
    try:
        return registry.get(name)
    except registry.UnknownLauncher as error:
        raise UserError(
            f"launcher.name is {name!r}, which is no launcher",
            hint="choose " + ", ".join(error.known),
        ) from error
