"""Keras 3, on the backend that the process was started with."""

import keras
import numpy as np


def _build(task):
    techniques = task.workload.techniques
    regularizer = None if techniques is None else keras.regularizers.L1(techniques.l1)
    constraint = None if techniques is None else keras.constraints.MaxNorm(techniques.max_norm, axis=0)
    layers = [keras.layers.Input((task.widths[0],))]
    for units in task.workload.hidden:
        layers.append(
            keras.layers.Dense(
                units, kernel_initializer="he_normal", kernel_regularizer=regularizer, kernel_constraint=constraint
            )
        )
        if techniques is None:
            layers.append(keras.layers.Activation("relu"))
        else:
            layers += [
                keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5),
                keras.layers.Activation("elu"),
                keras.layers.Dropout(techniques.dropout),
            ]
    return keras.Sequential([*layers, keras.layers.Dense(task.n_classes, kernel_regularizer=regularizer)])


def prepare_keras(task, seed):
    """Prepare a model; it is compiled by an epoch that is then undone."""
    workload = task.workload
    keras.utils.set_random_seed(seed)
    model = _build(task)
    optimizer = {"sgd": keras.optimizers.SGD, "adam": keras.optimizers.Adam}[workload.optimizer](workload.rate)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.optimizer.build(model.trainable_variables)
    variables = [*model.variables, *model.optimizer.variables]
    # One batch and a last one of the size that an epoch ends with compile all there is to compile.
    n_warm = workload.batch_size + len(task.X) % workload.batch_size
    before = [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]
    model.fit(task.X[:n_warm], task.y[:n_warm], batch_size=workload.batch_size, epochs=1, verbose=0)
    for variable, value in zip(variables, before, strict=True):
        variable.assign(value)

    def train():
        model.fit(task.X, task.y, batch_size=workload.batch_size, epochs=workload.epochs, verbose=0)
        return lambda X: np.asarray(model.predict(X, batch_size=1024, verbose=0)).argmax(1)

    return train
