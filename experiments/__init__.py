"""Commands that train and measure embeddings: `python -m experiments.train --help`."""
