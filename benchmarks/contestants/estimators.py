"""skdnn, and scikit-learn's estimator that it takes the place of."""

from sklearn.neural_network import MLPClassifier

from skdnn import MLPDeepClassifier
from skdnn.components import L1


def _shared(workload, seed):
    return {
        "hidden_layer_sizes": workload.hidden,
        "batch_size": workload.batch_size,
        "learning_rate_init": workload.rate,
        "max_iter": workload.epochs,
        "n_iter_no_change": workload.epochs,  # never stops before
        "random_state": seed,
    }


def _trainer(estimator, task):
    def train():
        return estimator.fit(task.X, task.y).predict

    return train


def make_skdnn(task, seed):
    """Return the `MLPDeepClassifier` of a task."""
    workload = task.workload
    settings = _shared(workload, seed) | {"optimizer": workload.optimizer, "device": "cpu", "dtype": workload.dtype}
    if (techniques := workload.techniques) is not None:
        settings |= {
            "activation": "elu",
            "batch_norm": True,
            "dropout": techniques.dropout,
            "max_norm": techniques.max_norm,
            "regularizer": L1(techniques.l1),
        }
    return MLPDeepClassifier(**settings)


def make_mlp_classifier(task, seed):
    """Return scikit-learn's `MLPClassifier`, without its default penalty and momentum."""
    settings = {"solver": task.workload.optimizer, "alpha": 0.0, "momentum": 0.0, "nesterovs_momentum": False}
    return MLPClassifier(**_shared(task.workload, seed), **settings)


def prepare_skdnn(task, seed):
    """Prepare `MLPDeepClassifier`."""
    return _trainer(make_skdnn(task, seed), task)


def prepare_mlp_classifier(task, seed):
    """Prepare `MLPClassifier`."""
    return _trainer(make_mlp_classifier(task, seed), task)
