"""What agent.pyz can be: `job`, `node`, `shim` and `sample`."""

from __future__ import annotations

import sys

USAGE = """usage: agent.pyz node [--parent-death[=PID]] PLAN_JSON
       agent.pyz job PLAN_JSON -- SRUN...
       agent.pyz shim -- ARGV...
       agent.pyz sample NODE_DIR MODE SECONDS RANKS [DEVICES]
"""


def main(argv: list[str] | None = None) -> int:
    words = sys.argv[1:] if argv is None else argv
    # Each branch imports its own part: a shim starts without the agent's modules.
    if words[:2] == ["shim", "--"] and len(words) > 2:
        from orchestrator.agent.shim import run_shim

        return run_shim(words[2:])
    if words[:1] == ["job"] and words[2:3] == ["--"] and len(words) > 3:
        from orchestrator.agent.job import run_job

        return run_job(words[1], words[3:])
    if words[:1] == ["node"] and len(words) in (2, 3):
        from orchestrator.agent.node_main import run_node

        option = words[1] if len(words) == 3 else ""
        name, _, pid = option.partition("=")
        if name in ("", "--parent-death") and (not pid or pid.isdigit()):
            return run_node(words[-1], parent_death=bool(name), parent=int(pid or 0))
    if words[:1] == ["sample"] and len(words) in (5, 6):
        from orchestrator.agent.sample import run_sample

        return run_sample(words[1:])
    sys.stderr.write(USAGE)
    return 2
