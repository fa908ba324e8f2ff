"""What goes wrong between ranks: connections, ports, collectives, hangs."""

from __future__ import annotations

from support.why_case import ANY, GLOO, SUM, TRAINING, WAIT, Case, gloo, one

CASES: tuple[Case, ...] = (
    Case(
        "peer-raised",
        "connection closed",
        gloo("if rank == 1:\n    raise ValueError('bad batch 17')\n" + SUM * 3),
        "failed",
        1,
        None,
    ),
    Case(
        "peer-raised-4",
        "connection closed",
        gloo(
            "for step in range(100):\n    if rank == 2 and step == 3:\n"
            "        raise RuntimeError('shard 5 is corrupt')\n    " + SUM
        ),
        "failed",
        2,
        None,
        procs=4,
    ),
    Case(
        "peer-left",
        "connection closed",
        gloo("if rank == 1:\n    os._exit(7)\n" + SUM * 3),
        "failed",
        1,
        None,
    ),
    Case(
        "late-root",
        "connection closed",
        gloo(
            "if rank == 1:\n    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
            "    dist.destroy_process_group()\n"
            "    end = time.monotonic() + 25\n"  # torchrun waits for 30
            "    other = f'{os.environ[\"PTX_NODE_DIR\"]}/rank-00000.exit.json'\n"
            "    while not os.path.exists(other) and time.monotonic() < end:\n"
            "        time.sleep(0.1)\n"
            "    raise ValueError('after its neighbours')\n" + SUM * 3
        ),
        "failed",
        1,
        None,
    ),
    Case(
        "peer-raised-accelerate",
        "connection closed",
        gloo("if rank == 1:\n    raise ValueError('bad batch 17')\n" + SUM * 3),
        "failed",
        1,
        None,
        launcher="accelerate",
    ),
    Case(
        "port-in-use",
        "port in use",
        WAIT
        + "import socket\nif rank == 0:\n    taken = socket.socket()\n    taken.bind(('', 0))\n"
        "    taken.listen()\n    import torch.distributed as dist\n"
        "    dist.TCPStore('127.0.0.1', taken.getsockname()[1], 2, True)\ntime.sleep(60)\n",
        "launch-error",
        0,
        "port-in-use",
    ),
    Case(
        "master-port-in-use",
        "port in use",
        GLOO + "start()\n",
        "launch-error",
        None,
        "port-in-use",
        launcher="deepspeed",
        listens=True,
    ),
    Case(
        "master-port-accelerate",
        "port in use",
        GLOO + "start()\n",
        "launch-error",
        None,
        "port-in-use",
        launcher="accelerate",
        listens=True,
    ),
    Case(
        "store-timeout",
        "rendezvous timeout",
        GLOO + "start(3, init_method=f'tcp://127.0.0.1:{int(os.environ[\"MASTER_PORT\"]) + 1}', "
        "world_size=3, rank=rank)\n",
        "launch-error",
        ANY,
        "rendezvous-timeout",
    ),
    Case(
        "no-such-host",
        "host name",
        GLOO + "if rank == 1:\n"
        "    start(3, init_method='tcp://no-such-host.invalid:29511', world_size=2, rank=1)\n"
        "time.sleep(60)\n",
        "launch-error",
        1,
        "host-unknown",
    ),
    Case(
        "head-is-itself",
        "host name",
        # As where a node's /etc/hosts gives the head's name an address of the node itself.
        GLOO + "import socket\nif rank == 1:\n    with socket.socket() as free:\n"
        "        free.bind(('', 0))\n        port = free.getsockname()[1]\n"
        "    start(3, init_method=f'tcp://localhost:{port}', world_size=2, rank=1)\n"
        "time.sleep(60)\n",
        "launch-error",
        1,
        "rendezvous-timeout",
    ),
    Case(
        "world-size",
        "world size",
        TRAINING.format(change="os.environ['WORLD_SIZE'] = '4'"),
        "failed",
        ANY,
        "world-size-differs",
    ),
    Case(
        "world-size-accelerate",
        "world size",
        # As a launcher does that falls back to as many separate trainings.
        TRAINING.format(change="os.environ.pop('WORLD_SIZE')"),
        "failed",
        ANY,
        "world-size-differs",
        launcher="accelerate",
    ),
    Case(
        "no-interface",
        "interface",
        GLOO + "os.environ['GLOO_SOCKET_IFNAME'] = 'nosuch0'\nstart()\n",
        "launch-error",
        ANY,
        "interface-missing",
    ),
    Case(
        "different-collectives",
        "different collectives",
        gloo(
            "if rank == 1:\n    dist.broadcast(torch.ones(1), 0)\nelse:\n    "
            + SUM
            + "time.sleep(3)"
        ),
        "failed",
        ANY,
        "collectives-differ",
        spec={"env": {"TORCH_DISTRIBUTED_DEBUG": "DETAIL"}},
    ),
    Case(
        "different-shapes",
        "different collectives",
        gloo("dist.all_reduce(torch.ones(1 + rank))\ntime.sleep(3)"),
        "failed",
        ANY,
        "collectives-differ",
        spec={"env": {"TORCH_DISTRIBUTED_DEBUG": "DETAIL"}},
    ),
    Case(
        "different-calls",
        "different collectives",
        gloo("if rank == 1:\n    dist.broadcast(torch.ones(1), 0)\n    " + SUM + SUM, seconds=3),
        "failed",
        ANY,
        "different-calls",
    ),
    Case(
        "uneven-steps",
        "left early",
        gloo(
            "for step in range(3 if rank == 1 else 5):\n    "
            + SUM
            + "dist.destroy_process_group()\n"
        ),
        "failed",
        1,
        "left-early",
    ),
    Case(
        "hang",
        "hang",
        gloo("if rank == 1:\n    time.sleep(60)\n" + SUM, seconds=8),
        "hang",
        1,
        "gloo-timeout",
    ),
    Case(
        "hang-4",
        "hang",
        gloo(
            "print('step 1')\nif rank == 2:\n    while True: time.sleep(1)\n" + SUM * 5, seconds=8
        ),
        "hang",
        2,
        "gloo-timeout",
        procs=4,
    ),
    Case(
        "hang-deepspeed",
        "hang",
        gloo("if rank == 1:\n    time.sleep(60)\n" + SUM, seconds=8),
        "hang",
        1,
        "gloo-timeout",
        launcher="deepspeed",
    ),
    Case(
        "hang-accelerate",
        "hang",
        gloo("if rank == 0:\n    time.sleep(60)\n" + SUM, seconds=8),
        "hang",
        0,
        "gloo-timeout",
        launcher="accelerate",
    ),
    Case(
        "barrier",
        "hang",
        gloo(
            "if rank == 1:\n    time.sleep(60)\n"
            "dist.monitored_barrier(timeout=datetime.timedelta(seconds=2))\n"
        ),
        "hang",
        1,
        "monitored-barrier",
    ),
    Case(
        "address-in-use",
        "port in use",
        one(
            "import socket\ntaken = socket.socket()\ntaken.bind(('', 0))\ntaken.listen()\n"
            "socket.socket().bind(('', taken.getsockname()[1]))"
        ),
        "failed",
        1,
        "address-in-use",
    ),
    Case(
        "cleanup-fails",
        "connection closed",
        gloo(
            SUM + "if rank == 1:\n    try:\n        raise ValueError('bad batch 17')\n"
            "    finally:\n        " + SUM + "time.sleep(60)\n",
            seconds=3,
        ),
        "failed",
        1,
        None,
    ),
)
