"""The one `__init__` and `fit` of all estimators: validate, resolve, plan, train, store."""

import contextlib
import functools
from abc import ABCMeta, abstractmethod
from dataclasses import replace
from numbers import Integral, Real

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.callback import CallbackSupportMixin, with_callbacks
from skorch.history import History

from skdnn._data import draw_seeds, entropy_of, resolve_sample_weight, split_rows, validate_rows
from skdnn._fit_tasks import epoch_tasks, fit_task
from skdnn._fitted import FittedNetworkMixin, attributes_of
from skdnn._monitor import OwnScore, ScorerOnOutputs
from skdnn._resolution import PLAIN, check_dtype, resolve_device, resolve_dtype, resolve_monitor, resolve_techniques
from skdnn._samples import Samples, to_training_data
from skdnn._together import learned_together
from skdnn._validation import CachedParameterNames, Interval, Options, StrOptions, validate_parameter_constraints
from skdnn.engine import build_module
from skdnn.exceptions import InvalidParameterError
from skdnn.training import Seeds, Session, TrainingNet, TrainingPlan, TrainingRun


def _check_value(cls, name, kind, value):
    """Check a parameter's value; `kind` is its type, for 1, 1.0 and True are equal."""
    validate_parameter_constraints(cls._parameter_constraints, {name: value}, caller_name=cls.__name__)


# Sound values are checked once: to check all takes a tenth of a short fit, too.
_check_plain_value = functools.lru_cache(maxsize=1024)(_check_value)


@contextlib.contextmanager
def _unchanged_on_error(estimator):
    """Take back what a call has set on the estimator if it fails: the fitted network goes with what was learned beside it."""
    before = vars(estimator).copy()
    try:
        yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise


class BaseMLPDeep(CachedParameterNames, FittedNetworkMixin, CallbackSupportMixin, BaseEstimator, metaclass=ABCMeta):
    """What classifier and regressor share. A subclass encodes targets, names the loss and scores outputs."""

    # Parameters that take names, objects or lists are checked where they are resolved.
    _parameter_constraints: dict = {
        "hidden_layer_sizes": "no_validation",
        "activation": "no_validation",
        "initializer": "no_validation",
        "batch_norm": "no_validation",
        "dropout": "no_validation",
        "input_dropout": "no_validation",
        "regularizer": "no_validation",
        "max_norm": "no_validation",
        "optimizer": "no_validation",
        "learning_rate_init": [Interval(Real, 0.0, None, closed="neither")],
        "learning_rate": "no_validation",
        "gradient_clipping": "no_validation",
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "shuffle": ["boolean"],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0.0, 1.0, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left"), Options(Real, {np.inf})],
        "tol": [Interval(Real, 0.0, None, closed="left")],
        "monitor": "no_validation",
        "warm_start": ["boolean"],
        "device": "no_validation",
        "dtype": [StrOptions({"auto", "float32", "float64", "bfloat16"})],
        "callbacks": [None, list, tuple],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        hidden_layer_sizes=(100,),
        activation="relu",
        *,
        initializer="auto",
        batch_norm=False,
        dropout=0.0,
        input_dropout=0.0,
        regularizer=None,
        max_norm=None,
        optimizer="adam",
        learning_rate_init=0.001,
        learning_rate="constant",
        gradient_clipping=None,
        batch_size="auto",
        max_iter=200,
        shuffle=True,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=10,
        tol=1e-4,
        monitor="auto",
        warm_start=False,
        device="auto",
        dtype="auto",
        callbacks=None,
        random_state=None,
        verbose=False,
    ):
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.initializer = initializer
        self.batch_norm = batch_norm
        self.dropout = dropout
        self.input_dropout = input_dropout
        self.regularizer = regularizer
        self.max_norm = max_norm
        self.optimizer = optimizer
        self.learning_rate_init = learning_rate_init
        self.learning_rate = learning_rate
        self.gradient_clipping = gradient_clipping
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.monitor = monitor
        self.warm_start = warm_start
        self.device = device
        self.dtype = dtype
        self.callbacks = callbacks
        self.random_state = random_state
        self.verbose = verbose

    def set_params(self, **params):
        """Set parameters, those of techniques as ``optimizer__momentum``.

        Parameters
        ----------
        **params : dict
            Names and values.

        Returns
        -------
        self : object
        """
        for key in params:
            technique, _, name = key.partition("__")
            value = params.get(technique, getattr(self, technique, None))
            if name and isinstance(value, str):
                raise InvalidParameterError(
                    f"{key} cannot be set, for {technique}={value!r} is a name. Give the technique as an object from "
                    f"skdnn.components first, then its parameters can be set."
                )
        return super().set_params(**params)

    # What `validate_rows` is to check about y.
    _target_checks: dict = {}

    def _resolve_loss(self):
        """Return the `Loss` that a parameter names, or None where the targets decide."""
        return

    @abstractmethod
    def _encode_target(self, samples, loss, continues, classes):
        """Check targets, set what is learned from them, and return them as an array of numbers for the loss.

        Parameters
        ----------
        samples : Samples
        loss : Loss or None
            As `_resolve_loss` named it.
        continues : bool
            Whether `y` must fit what was learned from the targets of an earlier call.
        classes : ndarray or None
            A classifier's classes, where they are not all in `y`.

        Returns
        -------
        encoded : ndarray of shape (n_samples,) or (n_samples, n_targets)
            Class indices, by which a validation split is stratified, or numbers.
        loss : Loss
        n_outputs : int
            Units of the output layer.
        """

    def _check_validation(self, n_rows):
        """Refuse validation rows that say nothing."""
        return

    def _learn_target_weights(self, samples, training_rows, is_stream):
        """Return a function from encoded targets to weights of their losses, or None where all weigh the same.

        Parameters
        ----------
        samples : Samples
        training_rows : ndarray of int
        is_stream : bool
            Whether there are more rows than these.

        Returns
        -------
        weigh : callable or None
            From an array like ``samples.encoded`` to one of shape (n_samples, 1) or (n_samples, n_outputs).
        """
        return

    @abstractmethod
    def _score_outputs(self, loss, outputs, y, sample_weight, weight):
        """Return the validation score of the output layer's values; see `TrainingPlan.score` for the arguments."""

    @with_callbacks
    def fit(self, X, y, sample_weight=None, X_val=None, y_val=None, sample_weight_val=None):
        """Train on X and y, from new weights unless ``warm_start=True``.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Numbers. They are used where they lie if they are a C-contiguous array of the dtype that is computed in, and
            converted once otherwise; they are never changed. A sparse matrix is made dense a few batches at a time. Networks
            learn best from features of similar scale: put a `StandardScaler` before.

        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Targets.

        sample_weight : array-like of shape (n_samples,), default=None
            How often a row counts, a number in [0.0, inf): the loss of a batch, and the statistics of batch normalisation,
            are weighted means. Rows of weight 0 are left out. In float64, integer weights give the same as repeated rows as
            long as all rows make one batch.

        X_val : {array-like, sparse matrix} of shape (n_validation_samples, n_features), default=None
            Rows to validate with instead of those that `early_stopping` would set aside: their score decides when to stop,
            and which epoch's weights are kept. In a pipeline they are transformed like X with
            ``Pipeline(..., transform_input=["X_val"])`` and metadata routing. Searches cut metadata that are as long as X by
            their folds, so let `X_val` have another number of rows there.

        y_val : array-like of shape (n_validation_samples,) or (n_validation_samples, n_targets), default=None
            Their targets; given exactly if `X_val` is.

        sample_weight_val : array-like of shape (n_validation_samples,), default=None
            Their weights in the validation loss and score.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            A parameter, X or y cannot be used; the message says what was given and what is allowed.

        KeyboardInterrupt
            Ctrl-C goes on to the caller. The estimator is then fitted with the best weights so far, if an epoch was over.
        """
        if (X_val is None) != (y_val is None):
            raise ValueError("X_val and y_val must be given together.")
        if sample_weight_val is not None and X_val is None:
            raise ValueError("sample_weight_val needs X_val and y_val.")
        self._check_parameters()
        validation = None if X_val is None else (X_val, y_val, sample_weight_val)
        continues = self.warm_start and self.__sklearn_is_fitted__()
        learned = None if continues else learned_together(self, X, y, sample_weight, validation)
        if learned is not None:
            vars(self).update(learned)
            return self
        with fit_task(self, X, y, sample_weight):
            self._train(X, y, sample_weight, continues=continues, validation=validation)
        return self

    def _train(self, X, y, sample_weight, *, continues, validation=None, n_epochs=None, classes=None):
        """Check everything, train and store.

        Parameters
        ----------
        X, y, sample_weight : as of `fit`
        continues : bool
            Whether to go on with the fitted network.
        validation : tuple of array-like, default=None
            X, y and sample weights to validate with.
        n_epochs : int, default=None
            Epochs of a stream of fits, whose optimizer and schedule go on; by default `max_iter` epochs of a fit of its own.
        classes : ndarray, default=None
            A classifier's classes, where they are not all in `y`.
        """
        listeners, is_stream, interrupt = epoch_tasks(self, X, y, sample_weight), n_epochs is not None, None
        with _unchanged_on_error(self):
            net = self._prepare((X, y, sample_weight), continues, validation, is_stream, classes)
            session = net.session
            try:
                net.train(n_epochs, listeners)
            except KeyboardInterrupt as error:
                if not net.outcome_.best_epoch:
                    raise
                interrupt = error
            self._store(net, session, continues, is_stream)
        if interrupt is not None:
            raise interrupt
        return self

    def _check_parameters(self):
        """Check what the table of constraints says of the parameters."""
        # Not by get_params, which reads the signature each time: a tenth of a short fit.
        for name in self._parameter_constraints:
            value = getattr(self, name)
            check = _check_plain_value if type(value) in PLAIN else _check_value
            check(type(self), name, type(value), value)

    def _prepare(self, given, continues=False, given_validation=None, is_stream=False, classes=None, session_type=Session):
        """Check everything, set what is learned from data before training, and return the `TrainingRun` that is to train."""
        device = resolve_device(self.device)
        check_dtype(self.dtype, device)
        # All parameters are known to be good before anything that is learned from data is replaced.
        techniques, loss, scorer = resolve_techniques(self), self._resolve_loss(), resolve_monitor(self.monitor, self)
        samples = self._read(*given, device, reset=not continues)
        encoded, loss, n_outputs = self._encode_target(samples, loss, continues, classes)
        samples, validation = replace(samples, encoded=encoded), None
        if given_validation is not None:
            validation = self._read(*given_validation, device, reset=False)
            validation = replace(validation, encoded=self._encode_target(validation, loss, True, None)[0])
        network = techniques.plan_network(samples.X.shape[1], n_outputs)
        if continues:
            self._check_same_network(network, loss)
        entropy = entropy_of(self.random_state)
        rows = self._split(samples, entropy, is_split=self.early_stopping and validation is None and not is_stream)
        score = None if is_stream else self._plan_score(scorer, loss, samples, rows[1], validation)
        plan = self._plan(techniques, network, loss, score, len(rows[0]), samples.X.dtype, device, entropy, continues)
        weigh = self._learn_target_weights(samples, rows[0], is_stream)
        session = self._session if is_stream and continues else None
        if session is not None and session.can_go_on(plan):
            plan = replace(plan, dtype=session.network.dtype)
            session.feed(plan, to_training_data(samples, rows, plan, weigh, validation))
        else:
            data = to_training_data(samples, rows, plan, weigh, validation)
            before = (self._network.snapshot(), len(self.loss_curve_)) if continues else ()
            session = session_type(plan, data, *before)
        return self._make_run(session, techniques.callbacks, History(self.history_) if continues else None)

    def _read(self, X, y, sample_weight, device, reset):
        """Check rows and return them as `Samples`."""
        X, y = validate_rows(self, X, y, dtypes=self._input_dtypes(device), reset=reset, **self._target_checks)
        return Samples(X, y, resolve_sample_weight(sample_weight, X))

    def _input_dtypes(self, device):
        """The dtypes that X may keep; the first is what others are converted to."""
        if self.dtype == "auto" and device.type == "cpu":
            return [np.float64, np.float32]
        return [np.float64 if self.dtype == "float64" else np.float32]

    def _split(self, samples, entropy, is_split):
        """Return the indices of training and validation rows, the latter None where all are trained on."""
        if not is_split:
            return samples.counted_rows, None
        (seed,) = draw_seeds(entropy, 1)
        return split_rows(samples.counted_rows, samples.encoded, self.validation_fraction, seed % 2**32)

    def _plan_score(self, scorer, loss, samples, validation_rows, validation):
        """Return the plan's `score`: the estimator's own, that of a scorer, or None where the loss is watched."""
        given = samples if validation is None else validation
        rows = validation_rows if validation is None else validation.counted_rows
        if rows is not None:
            self._check_validation(len(rows))
        if self.monitor == "loss":
            return None
        if scorer is None:
            return OwnScore(self, loss)
        if rows is None:
            raise ValueError(
                f"monitor={self.monitor!r} is a score of validation rows, and there are none. Set early_stopping=True, or "
                "give X_val and y_val."
            )
        return ScorerOnOutputs(self, loss, scorer, given.X[rows], given.y[rows])

    def _plan(self, techniques, network, loss, score, n_rows, X_dtype, device, entropy, continues):
        """Gather all that is decided before training starts."""
        batch_size = min(200 if self.batch_size == "auto" else self.batch_size, n_rows)
        if network.uses_batch_norm and batch_size < 2:
            samples = "1 sample" if n_rows == 1 else f"{n_rows} samples"
            raise ValueError(
                f"batch_norm needs batches of at least 2 rows, but batch_size={self.batch_size!r} and {samples} to train on "
                "give batches of 1 row. Raise batch_size or set batch_norm=False."
            )
        # Training that goes on must not see the same order again.
        kernels, order, dropout = draw_seeds(entropy, 3, after=1 + (len(self.loss_curve_) if continues else 0))
        return TrainingPlan(
            network=network,
            update=techniques.update,
            schedule=techniques.schedule,
            learning_rate_init=float(self.learning_rate_init),
            loss=loss,
            score=score,
            batch_size=batch_size,
            max_iter=self.max_iter,
            shuffle=self.shuffle,
            tol=self.tol,
            n_iter_no_change=self.n_iter_no_change,
            dtype=resolve_dtype(self.dtype, X_dtype, device),
            device=device,
            seeds=Seeds(kernels, order, dropout),
            verbose=int(self.verbose),
        )

    def _check_same_network(self, plan, loss):
        """Refuse to go on with a network of another shape, or whose outputs mean something else."""
        if loss.out_activation != self.out_activation_:
            raise InvalidParameterError(
                f"warm_start=True and partial_fit go on with the fitted network, whose outputs are for the loss "
                f"{self._fitted_loss!r} and mean something else to {loss!r}. Set warm_start=False to start anew."
            )
        (before,) = self._network.plans

        def shape(network):
            return [(layer.n_in, layer.n_out, layer.batch_norm is not None) for layer in network.layers]

        if shape(plan) != shape(before):
            raise InvalidParameterError(
                "warm_start=True goes on with the fitted network, so hidden_layer_sizes and batch_norm must stay as they were. "
                f"Layers (inputs, outputs, batch norm) were {shape(before)}, and are {shape(plan)} now. "
                "Set warm_start=False to start anew."
            )

    def _make_run(self, session, callbacks, history=None):
        """Wrap a session in what runs it: skorch's net where callbacks listen to it."""
        if not callbacks:
            return TrainingRun(session, history)
        plan = session.plan
        return TrainingNet(
            build_module(session.network),
            plan.loss,
            session=session,
            history=history,
            max_epochs=plan.max_iter,
            batch_size=plan.batch_size,
            lr=plan.learning_rate_init,
            device=str(plan.device),
            callbacks=callbacks,
        )

    def _store(self, net, session, continues, is_stream):
        """Set the fitted attributes from a run that is over."""
        outcome, history = net.outcome_, net.history
        n_before = len(history) - outcome.n_epochs
        rows = list(history)
        # Of a long stream only the last rows are looked up.
        is_known = continues and len(self.loss_curve_) == n_before
        losses = [*(self.loss_curve_ if is_known else ()), *(row["train_loss"] for row in rows[n_before if is_known else 0 :])]
        vars(self).update(attributes_of(session.network, session.plan.loss))
        if isinstance(net, TrainingNet):
            self._net, self._module = net, net.module_
        # An optimizer whose moments have overflowed would never recover: the stream then goes on with a new one.
        self._session = session if is_stream and session.has_sound_optimizer else None
        self.history_ = history
        self.n_iter_ = outcome.n_epochs + (self.n_iter_ if continues and is_stream else 0)
        self.t_ = outcome.n_samples + (self.t_ if continues else 0)
        self.loss_curve_ = losses
        self.best_epoch_ = n_before + outcome.best_epoch
        # After a divergence the weights are those of an earlier epoch, and so is the loss that speaks of them.
        kept = self.best_epoch_ if outcome.reason == "diverged" else len(history)
        self.loss_ = self.loss_curve_[kept - 1]
        if not outcome.is_validated:
            self.best_loss_ = outcome.best_value
            self.validation_scores_ = self.best_validation_score_ = None
        else:
            self.best_loss_ = None
            self.validation_scores_ = [row.get("valid_score", np.nan) for row in rows]
            self.best_validation_score_ = outcome.best_value
