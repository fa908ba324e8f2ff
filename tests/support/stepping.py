"""A rank that keeps the contract of saving and stopping, without torch: it makes steps in time
with all the others, commits checkpoints, looks at the stop file, and goes on where it was.

Ranks talk through rank 0, as through any collective: whoever dies is missed by all. Rank 0 writes
each step that it makes to steps.jsonl in the run folder.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from orchestrator.checkpoints.commit import AttemptOver, attempt_numbers, begin, commit
from orchestrator.checkpoints.manifest import Manifest
from orchestrator.checkpoints.names import committed_folders, step_folder

RUN = Path(os.environ["PTX_RUN_DIR"])
ATTEMPT = int(os.environ["PTX_ATTEMPT"])
RANK, WORLD = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
STOPPED = 143


class Peers:
    """Rank 0 hears every rank's word and answers all with the greatest."""

    def __init__(self) -> None:
        hub = RUN / "attempts" / f"{ATTEMPT:03d}" / "hub"
        if RANK == 0:
            listening = socket.create_server(("127.0.0.1", 0))
            scratch = hub.with_suffix(".new")
            scratch.write_text(str(listening.getsockname()[1]))
            scratch.rename(hub)
            self._others = [listening.accept()[0] for _ in range(WORLD - 1)]
        else:
            while not hub.exists():
                time.sleep(0.05)
            self._others = [socket.create_connection(("127.0.0.1", int(hub.read_text())))]

    def agree(self, word: int) -> int:
        """Raises ConnectionError when a rank is gone."""
        if RANK == 0:
            word = max([word, *(self._hear(other) for other in self._others)])
        for other in self._others:
            other.sendall(bytes([word]))
        return word if RANK == 0 else self._hear(self._others[0])

    def _hear(self, other: socket.socket) -> int:
        heard = other.recv(1)
        if not heard:
            raise ConnectionError("a rank is gone")
        return heard[0]


def save(step: int) -> None:
    folder = step_folder(RUN / "checkpoints", step, ATTEMPT)
    if folder.committed:
        return
    begin(folder)
    manifest = Manifest(
        run_id=RUN.name,
        step=step,
        attempt=ATTEMPT,
        created=time.time(),
        world_size=WORLD,
        strategy={},
        layout={},
        files=(),
        state={},
    )
    commit(folder.path, manifest, RUN / "attempts")


def haunt(step: int) -> None:
    """What a rank does whose machine was given up while it lives on: it tries to save."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    deadline = time.monotonic() + 120
    while max(attempt_numbers(RUN / "attempts")) <= ATTEMPT and time.monotonic() < deadline:
        time.sleep(0.1)
    try:
        save(step)
    except AttemptOver as error:
        (RUN / "refused").write_text(str(error))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=0.1)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--crash-at", type=int, default=-1)
    parser.add_argument("--crash-in", type=int, default=0, help="attempts that crash")
    parser.add_argument("--crash-with", default="RuntimeError")
    parser.add_argument("--hang-at", type=int, default=-1)
    parser.add_argument("--haunt", action="store_true")
    parser.add_argument("--deaf", action="store_true", help="to whoever wants it to stop")
    args = parser.parse_args()

    asked = [False]
    # Of node 0, where torchrun has its store: without that it ends the ranks of other nodes.
    haunts = args.haunt and ATTEMPT == 0 and os.environ["PTX_NODE_RANK"] == "0"
    deaf = args.haunt and ATTEMPT == 0 and not haunts  # so that the other hears of nothing
    if args.deaf:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    elif not deaf:
        signal.signal(signal.SIGTERM, lambda *_: asked.__setitem__(0, True))
    saved = committed_folders(RUN / "checkpoints")
    step = saved[-1].step if saved else 0
    crashes = args.crash_in > ATTEMPT and RANK == WORLD - 1
    if crashes and args.crash_at < 0:
        raise getattr(__builtins__, args.crash_with)("on purpose")
    peers = Peers()
    print("ready from step", step, flush=True)
    try:
        while step < args.steps:
            if step == args.hang_at and ATTEMPT == 0:
                time.sleep(3600)
            if crashes and step >= args.crash_at:
                raise getattr(__builtins__, args.crash_with)(f"on purpose at step {step}")
            time.sleep(args.seconds)
            step += 1
            if os.environ.get("LOCAL_RANK") == "0" and not deaf:
                Path(os.environ["PTX_STEP_FILE"]).touch()
                asked[0] |= not args.deaf and Path(os.environ["PTX_STOP_FILE"]).exists()
            stopping = peers.agree(int(asked[0]))
            if RANK == 0:
                with (RUN / "steps.jsonl").open("a") as file:
                    file.write(json.dumps({"attempt": ATTEMPT, "step": step}) + "\n")
                if stopping or step % args.every == 0:
                    save(step)
            if stopping:
                peers.agree(0)  # nobody leaves before rank 0 has saved
                print("stopped at step", step, flush=True)
                sys.exit(STOPPED)
    except ConnectionError:
        if haunts:
            haunt(step)
        time.sleep(1)  # whoever is missed was first, however long its shim takes to say so
        raise
    print("done", flush=True)


main()
