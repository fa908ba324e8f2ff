"""A rank that will not go: ignores SIGTERM, and so does a child in a session of its own."""

import os
import signal
import sys
import time

signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(3600)
    os._exit(0)
print("ready", os.environ["RANK"], "of", os.environ["WORLD_SIZE"], flush=True)
sys.stderr.write("and stays\n")
time.sleep(3600)
