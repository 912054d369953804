"""The parts that the docstrings of the estimators share."""

import inspect

_PARAMETERS = """
hidden_layer_sizes : array-like of int in [1, inf), or int, default=(100,)
    Units of each hidden layer. An empty sequence is multinomial logistic regression.

activation : str, Activation, callable, or list of them, default="relu"
    Activation of the hidden layers, a list has one a hidden layer. Names: "identity", "logistic", "tanh", "relu",
    "leaky_relu", "elu", "selu", "gelu", "silu", "softplus", "mish", "hard_swish". A callable is any element-wise torch
    function; autograd supplies its derivative.

initializer : str, Initializer, callable, or list of them, default="auto"
    How kernels are drawn; biases start at 0. "auto" is He for the ReLU family, LeCun for SELU, Glorot otherwise and for
    the output layer. Names: "glorot_uniform", "glorot_normal", "he_uniform", "he_normal", "lecun_uniform",
    "lecun_normal", "orthogonal", "normal", "uniform", and "zeros", which as the one value speaks of the output layer
    only. A list has one a hidden layer, or one a layer with the output layer last.

batch_norm : bool or BatchNorm, default=False
    Batch normalisation before the activation of each hidden layer, with ``BatchNorm(output=True)`` of the logits too.

dropout : float in [0.0, 1.0), or list of float, default=0.0
    Share of each hidden layer's outputs that is set to 0 in training, a list has one a hidden layer.

input_dropout : float in [0.0, 1.0), default=0.0
    The same for the inputs.

regularizer : str, Regularizer, None, or list of them, default=None
    Penalty on the kernels of all layers, added to the loss: "l1", "l2", "l1_l2". A list has one a hidden layer, or one a
    layer. `MLPClassifier`'s ``alpha`` is ``L2(alpha / batch_size)``.

max_norm : float in (0.0, inf), MaxNorm, None, or list of them, default=None
    Largest Euclidean norm of a unit's incoming weights, restored after every update. One value holds for the hidden
    layers; a list has one a hidden layer, or one a layer.

optimizer : str, Optimizer, or type, default="adam"
    Update rule: "sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw", "nadam", "adamax", "amsgrad"; any
    `torch.optim.Optimizer` class, or ``TorchOptimizer(cls, **kwargs)`` with its arguments.

learning_rate_init : float in (0.0, inf), default=0.001
    The learning rate that the schedule starts from.

learning_rate : str or Schedule, default="constant"
    Schedule of the learning rate: "constant", "invscaling", "adaptive" (these as in `MLPClassifier`, but for every
    optimizer), "exponential", "power", "piecewise_constant", "cosine", "one_cycle", "warm_up".

gradient_clipping : float in (0.0, inf), GradientClipping, str or None, default=None
    Bound on the gradient: a float is the largest global norm, ``ClipValue(1.0)`` or "value" cuts each component.

batch_size : int in [1, inf) or "auto", default="auto"
    Rows of a batch, at most all of them; "auto" is ``min(200, n_samples)``.

max_iter : int in [1, inf), default=200
    Epochs at most.

shuffle : bool, default=True
    Whether to put the rows into a new order at each epoch.

early_stopping : bool, default=False
    Whether to set aside `validation_fraction` of the rows (stratified by class in a classifier, unless these are fewer
    rows than classes), watch their score instead of the training loss, and keep the weights (running statistics included)
    of the best epoch.

validation_fraction : float in (0.0, 1.0), default=0.1
    Share of the rows for early stopping.

n_iter_no_change : int in [1, inf) or inf, default=10
    Training stops when this many epochs, and one more, have not brought `tol`. With ``n_iter_no_change=max_iter`` all
    epochs are run, and no warning is given at the end.

tol : float in [0.0, inf), default=1e-4
    What an epoch must bring, in the loss or the score, to count as progress; an absolute amount.

monitor : {"auto", "loss"}, str or callable, default="auto"
    What of the validation rows (of `early_stopping`, or `X_val`) decides when to stop and which epoch is best: "auto" is the
    estimator's own score, weighted by sample and class weights; "loss" the validation loss; a scorer, or its name as
    `sklearn.metrics.get_scorer_names` has it, is that score. Without validation rows the training loss decides, and scorers
    are refused.

warm_start : bool, default=False
    Whether `fit` goes on with the fitted weights for `max_iter` more epochs. The optimizer's state and the schedule start
    anew, so that a pickled estimator goes on like the one it was made of.

device : str or torch.device, default="auto"
    Where to train and predict: "auto" (a CUDA GPU if there is one, else the CPU), "cpu", "cuda:1", "mps", ...

dtype : {"auto", "float32", "float64", "bfloat16"}, default="auto"
    What to compute in. "auto" follows X on the CPU (float32 for float32, else float64), and is float32 on a GPU. "bfloat16"
    is float32, but for the large matrix products of training: they multiply numbers rounded to bfloat16, are summed in
    float32 and rounded once. Weights, optimizer, batch normalisation, losses, validation and predictions stay float32. It
    pays for wide layers and large batches: products of fewer than 100 rows, or of fewer than 64 million multiplications (rows
    times inputs times units of a layer), would gain nothing and stay float32, too. On one thread of a CPU with AMX, three
    layers of 1,024 units and batches of 256 train 1.5 times as fast, and 784-300-100-10 with batches of 200 as in float32.
    It needs a CPU with AVX512_BF16 or AMX, or a CUDA GPU of compute capability 8.0; `fit` refuses it elsewhere. Networks
    that were trained so predict everywhere.

callbacks : list of skorch.callbacks.Callback, default=None
    Told of epochs and batches by `net_`, as instances, classes or ``(name, callback)`` pairs. One that raises
    `KeyboardInterrupt` ends training with the epoch, as skorch's `EarlyStopping` does; one that loads weights when training
    is over has the last word. To callbacks, targets are what the network is trained on: class indices, or standardised
    numbers. A learning rate that they set (`LRScheduler`) multiplies the schedule of `learning_rate`. Callbacks that listen
    to batches cost a call for each. scikit-learn's own callbacks are set with `set_callbacks`.

random_state : int, RandomState instance or None, default=None
    Seed of initial weights, order of rows, dropout and the validation split. Global random generators are neither read
    nor moved; None takes fresh entropy.

verbose : bool or int, default=False
    0 or False shows nothing, 1 or True a progress bar on standard error (a widget in a notebook) with the last epoch's
    losses and score, 2 or more prints a line an epoch. Callbacks print what they print.
"""

_ATTRIBUTES = """
loss_ : float
    Training loss, penalties included, of the last epoch; after a divergence, of the epoch whose weights were kept.

best_loss_ : float or None
    Least training loss of the fit's epochs; None with ``early_stopping=True``.

loss_curve_ : list of float
    Training loss of each epoch: the mean over its rows, each before the update of its batch, and the penalties at its end.

validation_scores_ : list of float or None
    What `monitor` says of the validation rows after each epoch, greater is better: a loss is negative. None without
    validation rows.

best_validation_score_ : float or None
    The best of them in this fit.

best_epoch_ : int
    The epoch with the best score or, without ``early_stopping``, the least loss, counted from 1.

n_iter_ : int
    Epochs that the last call of `fit` ran.

t_ : int
    Training rows seen, in all epochs.

n_layers_ : int
    Layers, input and output included.

coefs_ : list of ndarray of shape (n_in, n_out)
    Kernels, one a layer; of the estimator's own memory.

intercepts_ : list of ndarray of shape (n_out,)
    Biases, one a layer.

history_ : skorch.history.History
    Of each epoch: ``train_loss`` and its parts ``base_loss`` and ``penalty``, ``learning_rate``, and with early stopping
    ``valid_loss`` and ``valid_score``; and what `callbacks` have recorded.

module_ : torch.nn.Sequential
    The network as torch knows it. Its parameters are the estimator's own: training it changes predictions.

net_ : skorch.NeuralNet
    The net that ran the training.

n_features_in_ : int
    Features seen in `fit`.

feature_names_in_ : ndarray of shape (n_features_in_,)
    Their names, where X had any that are all strings.
"""


def share_docstring(cls):
    """Fill the shared parts into a class' docstring, where it says ``{parameters}`` and ``{attributes}``."""
    if cls.__doc__ is not None:  # as it is under python -OO
        docstring = inspect.cleandoc(cls.__doc__)
        cls.__doc__ = docstring.replace("{parameters}", _PARAMETERS.strip()).replace("{attributes}", _ATTRIBUTES.strip())
    return cls
