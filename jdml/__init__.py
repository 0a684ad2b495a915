"""jdml: deep metric learning in JAX and Flax.

Rooms: `losses`, `miners`, `distances`, `regularizers`, `states`, `objectives`, `training`,
`encoders`, `augment`, `samplers`, `datasets`, `retrieval`, `metrics`, `postprocess`, `diagnostics`,
`checkpoints` and `report`. Each is imported where it is used:

>>> from jdml import losses, miners
"""

__version__ = "0.1.0"
