"""The command line.

A command mostly loads modules, which is no garbage: looking for some at the usual pace takes a
tenth of the start-up.
"""

import gc

gc.set_threshold(100_000, 20, 20)
