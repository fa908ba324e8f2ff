"""What a supervisor of this machine is told by signals."""

from __future__ import annotations

import os
import select
import signal


class Signals:
    """SIGTERM as a flag. What a terminal sends goes unheeded through handlers: a signal that
    were ignored would stay ignored in the launcher and the ranks."""

    def __init__(self) -> None:
        self.stop = False
        self._wake, write = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._ask_to_stop)
        for unheeded in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGCHLD):
            signal.signal(unheeded, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def _ask_to_stop(self, *_: object) -> None:
        self.stop = True

    def pause(self, seconds: float) -> None:
        """Until a signal comes, one that came since the last pause included."""
        if select.select([self._wake], [], [], max(0.0, seconds))[0]:
            os.read(self._wake, 4096)
