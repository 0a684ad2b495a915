"""Five steps of two processes with two devices each are those of one device."""

import pathlib

import jax
import numpy as np
from test_meshes import few, heads, pairs, single, wrapped
from two_processes import together

from jdml.checkpoints import Checkpoints

TESTS = pathlib.Path(__file__).parent
OBJECTIVES = {"few": few, "heads": heads, "pairs": pairs}
KINDS = (("few", "jit", 2), ("few", "pmap", 1), ("heads", "jit", 2), ("pairs", "jit", 1))
# What each process does: its share of every batch, and in the middle a stop with a checkpoint.
WORK = """
import sys
port, index, folder = sys.argv[1:4]
import jax
jax.distributed.initialize(f"localhost:{port}", 2, int(index))
import numpy as np
import test_meshes
from test_meshes import ROWS, batch, wrapped
from jdml.checkpoints import Checkpoints
from jdml.samplers import share
jax.config.update("jax_enable_x64", True)
mine = share(np.arange(ROWS), int(index), 2)
for name, kind, model in KINDS:
    step, state = wrapped(getattr(test_meshes, name), kind, 4, model=model)
    with Checkpoints(f"{folder}/{name}-{kind}") as checkpoints:
        for i in range(5):
            state, metrics = step(state, {field: x[mine] for field, x in batch(i).items()})
            if i == 2:
                checkpoints.save(state)
                state, _ = checkpoints.restore_latest(state)
        checkpoints.save(state)
"""


def test_five_steps_of_two_processes_are_those_of_one_device(tmp_path, quick_compile):
    code = f"import sys; sys.path.insert(0, {str(TESTS)!r}); KINDS = {KINDS}\n{WORK}"
    codes, said = together(lambda port, index: ["-c", code, str(port), str(index), str(tmp_path)])
    assert codes == [0, 0], said
    with jax.enable_x64(True):
        for name, kind, _ in KINDS:
            objective = OBJECTIVES[name]
            expected = jax.tree_util.tree_leaves_with_path(single(objective)[0])
            template = wrapped(objective, "jit", model=4)[1]
            with Checkpoints(
                tmp_path / f"{name}-{kind}"
            ) as checkpoints:  # saved on 4 devices, read on 8
                got, _ = checkpoints.restore_latest(template)
            got = got._replace(key=jax.random.key_data(got.key))
            for (path, y), x in zip(expected, jax.tree.leaves(got), strict=True):
                where = f"{name}, {kind}: {jax.tree_util.keystr(path)}"
                np.testing.assert_allclose(np.asarray(x), y, 1e-5, 1e-10, err_msg=where)
