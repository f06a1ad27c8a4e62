"""One training forward and backward of the released network against the oracle's (fixture l)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kgmgt_jax.interop.torch_names import generator_entries, to_state_dict
from kgmgt_jax.losses import l1_loss
from tests.models.fixtures import Fixture, relative_error
from tests.models.released import (
    Compiled,
    Released,
    from_image,
    recipe,
    to_image,
    variables,
)

FORWARD, NORM, PROJECTION = 1e-5, 5e-3, 2e-2
DIRECTIONS_SEED = 999
NOTHING = 1e-12  # true norm of the gradient of a bias that batch norm removes
ROUNDING = 1e-2  # scale on which the rounding that is left of it is judged


@pytest.fixture(scope="module")
def step(fixtures_dir):
    """Fixture, loss, both images, gradients and variables after, by released name."""
    fixture = Fixture(fixtures_dir, "l_train_step_64")
    *frames, truth = (to_image(fixture[f"in/{n}"]) for n in ("lq", "ref1", "ref2", "gt"))
    start, parts = variables(fixtures_dir), Compiled(train=True)

    def loss(params):
        network = Released({**start, "params": params}, parts)
        output = network(*frames, train=True)
        return l1_loss(output.image, jnp.asarray(truth)), (output, network.variables)

    (value, (output, after)), grads = jax.value_and_grad(loss, has_aux=True)(start["params"])
    return jax.device_get((value, output, grads, after)), fixture


def test_loss_and_images_equal_reference(step):
    (loss, output, _, _), fixture = step
    assert relative_error(loss, fixture["out/loss"]) < FORWARD
    assert relative_error(from_image(output.mentor), fixture["out/out1"]) < FORWARD
    assert relative_error(from_image(output.image), fixture["out/out"]) < FORWARD


def test_gradient_of_every_parameter_equals_reference(step, fixtures_dir):
    (_, _, grads, after), fixture = step
    names = fixture.meta["keys"]
    entries = [e for e in generator_entries() if e.path[0] == "params"]
    grads = to_state_dict(entries, {"params": grads})
    assert sorted(grads) == names
    all_shapes = {k: v.shape for k, v in to_state_dict(list(generator_entries()), after).items()}
    directions = recipe(fixtures_dir).directions(all_shapes, DIRECTIONS_SEED)
    for i, name in enumerate(names):
        grad, norm = grads[name].astype(np.float64), fixture["out/g_norm64"][i]
        scale = ROUNDING if norm < NOTHING else norm
        head = np.pad(grad.ravel()[:8], (0, max(0, 8 - grad.size)))
        assert abs(np.linalg.norm(grad) - norm) < NORM * scale, name
        projection = np.sum(grad * directions[name])
        assert abs(projection - fixture["out/g_proj64"][i]) < PROJECTION * scale, name
        assert np.max(np.abs(head - fixture["out/g_head"][i])) < NORM * scale, name


def test_running_statistics_after_ten_updates_equal_reference(step):
    (_, _, _, after), fixture = step
    entries = [e for e in generator_entries() if e.path[0] == "batch_stats"]
    stats = to_state_dict(entries, after)
    stored = fixture.weights("out/bn_after/")
    assert stored.keys() == stats.keys()
    for name, want in stored.items():
        assert relative_error(stats[name], want) < FORWARD, name
