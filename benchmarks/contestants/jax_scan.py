"""JAX: an epoch is one jitted scan over its batches."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

_EPSILON = 1e-5  # of batch norm
_MOMENTUM = 0.9
_BETAS = (0.9, 0.999)


def _initial_state(task, rng):
    """Return parameters, batch norm's running statistics and the optimizer's moments, as NumPy arrays."""
    dtype, parameters, statistics = task.workload.dtype, [], []
    for i, (n_in, n_out) in enumerate(zip(task.widths, task.widths[1:], strict=False)):
        is_output = i == len(task.widths) - 2
        deviation = np.sqrt(2 / (n_in + n_out) if is_output else 2 / n_in)
        layer = {"kernel": (deviation * rng.standard_normal((n_in, n_out))).astype(dtype), "bias": np.zeros(n_out, dtype)}
        if task.workload.techniques is not None and not is_output:
            layer |= {"scale": np.ones(n_out, dtype), "shift": np.zeros(n_out, dtype)}
            statistics.append((np.zeros(n_out, dtype), np.ones(n_out, dtype)))
        parameters.append(layer)
    moments = []
    if task.workload.optimizer == "adam":
        moments = [jax.tree.map(np.zeros_like, parameters) for _ in range(2)]
    return parameters, statistics, moments, np.zeros((), dtype)


def _forward(parameters, statistics, x, techniques, key=None):
    """Return logits and the new running statistics; with a key as in training, else as in prediction."""
    updated = []
    for i, layer in enumerate(parameters[:-1]):
        x = x @ layer["kernel"] + layer["bias"]
        if techniques is None:
            x = jax.nn.relu(x)
            continue
        mean, variance = statistics[i]
        if key is not None:
            batch_mean, batch_variance = x.mean(0), x.var(0)
            unbiased = batch_variance * (len(x) / (len(x) - 1))
            updated.append(
                jax.tree.map(
                    lambda old, new: _MOMENTUM * old + (1 - _MOMENTUM) * jax.lax.stop_gradient(new),
                    (mean, variance),
                    (batch_mean, unbiased),
                )
            )
            mean, variance = batch_mean, batch_variance
        x = jax.nn.elu((x - mean) * (layer["scale"] * jax.lax.rsqrt(variance + _EPSILON)) + layer["shift"])
        if key is not None:
            key, mask_key = jax.random.split(key)
            kept = jax.random.bernoulli(mask_key, 1 - techniques.dropout, x.shape)
            x = jnp.where(kept, x / (1 - techniques.dropout), 0)
    return x @ parameters[-1]["kernel"] + parameters[-1]["bias"], updated


def _loss(parameters, statistics, x, y, techniques, key):
    logits, updated = _forward(parameters, statistics, x, techniques, key)
    loss = -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1).mean()
    if techniques is not None:
        loss += techniques.l1 * sum(jnp.abs(layer["kernel"]).sum() for layer in parameters)
    return loss, updated


def _update(workload, parameters, gradients, moments, count):
    """Return parameters and moments after one update by SGD or Adam."""
    if workload.optimizer == "sgd":
        return jax.tree.map(lambda p, g: p - workload.rate * g, parameters, gradients), moments
    first, second = (
        jax.tree.map(lambda m, g, b=beta, k=power: b * m + (1 - b) * g**k, moment, gradients)
        for moment, beta, power in zip(moments, _BETAS, (1, 2), strict=True)
    )
    rate = workload.rate / (1 - _BETAS[0] ** count)
    correction = 1 / (1 - _BETAS[1] ** count)
    parameters = jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v * correction) + 1e-8), parameters, first, second)
    return parameters, [first, second]


def _project(parameters, radius):
    """Put the incoming weights of every hidden unit back onto the ball."""
    for layer in parameters[:-1]:
        norms = jnp.linalg.norm(layer["kernel"], axis=0, keepdims=True)
        layer["kernel"] = layer["kernel"] * jnp.minimum(radius / norms, 1)
    return parameters


def _step(workload, state, x, y, key):
    parameters, statistics, moments, count = state
    key = None if workload.techniques is None else key
    gradient = jax.value_and_grad(_loss, has_aux=True)
    (loss, statistics), gradients = gradient(parameters, statistics, x, y, workload.techniques, key)
    count = count + 1
    parameters, moments = _update(workload, parameters, gradients, moments, count)
    if workload.techniques is not None:
        parameters = _project(parameters, workload.techniques.max_norm)
    return (parameters, statistics, moments, count), loss


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def _epoch(workload, state, X, y, order, key):
    """Train on all batches of an epoch, the smaller last one included."""
    n_full, rest = divmod(len(order), workload.batch_size)
    keys = jax.random.split(key, n_full + 1)

    def body(state, batch):
        rows, key = batch
        return _step(workload, state, X[rows], y[rows], key)

    batches = order[: len(order) - rest].reshape(n_full, -1), keys[:-1]
    state, losses = jax.lax.scan(body, state, batches)
    total = losses.sum() * workload.batch_size
    if rest:
        rows = order[-rest:]
        state, loss = _step(workload, state, X[rows], y[rows], keys[-1])
        total += loss * rest
    return state, total / len(order)


@functools.partial(jax.jit, static_argnums=0)
def _predict(techniques, parameters, statistics, X):
    return _forward(parameters, statistics, X, techniques)[0].argmax(1)


def prepare_jax(task, seed):
    """Prepare the scan. The first fit of a workload compiles it, later ones find it compiled."""
    workload = task.workload
    x64 = functools.partial(jax.enable_x64, workload.dtype == "float64")

    with x64():  # handing data over may copy them, which a loop of one's own does once for many fits
        X, y = jnp.asarray(task.X), jnp.asarray(task.y.astype(np.int32))

    def learn():
        rng = np.random.default_rng(seed)
        state = jax.tree.map(jnp.asarray, _initial_state(task, rng))
        for _ in range(workload.epochs):
            # NumPy permutes faster than JAX on a CPU. The masks' generator is the fastest one of JAX.
            order = rng.permutation(len(task.X)).astype(np.int32)
            key = jax.random.key(int(rng.integers(2**31)), impl="unsafe_rbg")
            state, loss = _epoch(workload, state, X, y, order, key)
            float(loss)
        return state

    def train():
        with x64():
            parameters, statistics, *_ = learn()

        def predict(X):
            with x64():
                return np.asarray(_predict(workload.techniques, parameters, statistics, X))

        return predict

    return train
