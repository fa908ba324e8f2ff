"""The process of a node's agent."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from orchestrator.agent.linux import become_subreaper, set_name, set_parent_death_signal
from orchestrator.agent.node import WAITED, Node
from orchestrator.agent.place import NotStartable, Place, read_plan
from orchestrator.agent.stderr import tell


def run_node(plan_path: str, *, parent_death: bool, parent: int) -> int:
    """Run this node's part; 0 only when every local rank's exit record says 0, or when the ranks
    ended because they were asked to.

    With `parent_death` the end of the parent process (`parent`, else whoever it is now) is an
    order to end.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, WAITED)
    expected = parent or os.getppid()
    if parent_death:
        set_parent_death_signal(signal.SIGTERM)
    set_name("ptx-agent")
    become_subreaper()
    try:
        path = Path(plan_path).absolute()
        plan = read_plan(path)
        place = Place(path, plan, os.environ)
        os.umask(0o007 if place.shared else 0o077)
        place.make_folders()
        node = Node(place, plan, expected if parent_death else None)
    except (NotStartable, OSError) as error:
        tell(str(error))
        return 1
    return node.run()
