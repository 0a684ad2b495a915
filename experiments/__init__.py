"""Commands that train and measure embeddings: `python -m experiments.train --help`."""

import time

STARTED = time.perf_counter()  # before the imports of a command, which take seconds too
