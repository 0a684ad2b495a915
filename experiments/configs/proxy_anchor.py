"""Proxy-anchor loss: proxies learn faster than the encoder.

python -m experiments.train --loss proxy_anchor
Two CPU cores, 2 to 3 minutes. With --steps 500: MAP@R 0.72 on the 300 unseen syllables, 0.61 in
unseen typefaces.
"""

loss = "proxy_anchor"
loss_options = {"margin": 0.1, "alpha": 32.0}
classes_per_batch, per_class = 64, 2
table_multiplier = 10.0
