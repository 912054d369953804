"""scikit-learn's tasks of a search, each a candidate on a fold, taken out of joblib's hands so that groups stay together."""

import pickle

from joblib.parallel import ParallelBackendBase, SequentialBackend
from sklearn import get_config

from skdnn.model_selection._jobs import run_jobs
from skdnn.model_selection._members import score_members, train_members

# Arguments of scikit-learn's tasks that callbacks are given. There are none where others run the tasks.
_FOR_CALLBACKS = "caller", "callback_ctx"


class TakesTasks(ParallelBackendBase):
    """A backend of joblib that runs everything in this process, but for the tasks of one call, which someone else runs.

    Attributes
    ----------
    run : callable or None
        From all tasks of the next call, each (function, args, kwargs), to an iterable of their results in the same order. It is
        asked once; tasks of later calls run in this process.
    """

    uses_threads = supports_sharedmem = True  # it stays here
    run = None

    def effective_n_jobs(self, n_jobs):
        return 1 if self.run is None else 2  # where it is 1, joblib runs tasks itself

    def configure(self, n_jobs=1, parallel=None, **settings):
        parallel.pre_dispatch = "all"
        return super().configure(n_jobs, parallel, **settings)

    def start_call(self):
        self._tasks, self._results = [], None

    def submit(self, func, callback=None):
        self._tasks += func.items
        callback(None)  # otherwise joblib would wait for the end of what has not begun
        return len(func.items)

    def get_nested_backend(self):
        return SequentialBackend(nesting_level=self.nesting_level), None

    def retrieve_result(self, out, timeout=None):
        if self._results is None:
            run, self.run = self.run, None
            self._results = iter(run(self._tasks))
        return [next(self._results) for _ in range(out)]


class Division:
    """The candidates of a search, divided among jobs by folds and groups.

    Parameters
    ----------
    members : Members
    parameters : list of dict
        The candidates.
    candidates : Candidates
        Those of this process, which take over what jobs have done.
    data : tuple
        X, y and what the estimator's `fit` is given beside them.
    folds : list of ndarray of int
        Rows to train on.
    evaluation : Evaluation
        For tasks that are left to this process.
    backend : joblib.parallel.ParallelBackendBase
    progress : Progress
    """

    def __init__(self, members, parameters, candidates, data, folds, evaluation, backend, progress):
        self._members = members
        self._parameters = parameters
        self._candidates = candidates
        self._data = data
        self._folds = folds
        self._evaluation = evaluation
        self._backend = backend
        self._progress = progress
        self._groups = candidates.divide(members.n_jobs, len(folds))

    def train(self):
        """Have all candidates trained, so that their fits in this process find themselves done."""
        calls = [((0, 1, 2 + fold), (self._parameters_of(group),)) for fold, group in self._groups]
        for i, learned in self._run(train_members, [self._members, self._data, *self._folds], calls):
            self._candidates.add(self._groups[i][1], *learned)

    def score(self, tasks):
        """Run scikit-learn's tasks, those of a candidate on all folds one after the other, and yield their results in order."""
        numbers = [[j * len(self._folds) + fold for j in group] for fold, group in self._groups]
        to_send = [(function, args, named | dict.fromkeys(_FOR_CALLBACKS)) for function, args, named in tasks]
        calls = [
            ((0,), (self._parameters_of(group), [to_send[n] for n in of_group], get_config()))
            for (_, group), of_group in zip(self._groups, numbers, strict=True)
        ]
        outcomes = {}
        try:
            for i, (of_group, corrections) in self._run(score_members, [self._members], calls):
                outcomes.update(zip(numbers[i], of_group, strict=True))
                self._candidates.corrections |= {numbers[i][turn]: seconds for turn, seconds in corrections.items()}
        except pickle.PicklingError:  # of something that only scoring needs, as a scorer that holds a lock
            self.train()
        else:
            self._candidates.allow_runs(0)  # the few that are left must not have all trained again
        for n, task in enumerate(tasks):
            outcome, place = outcomes.get(n), divmod(n, len(self._folds))
            yield self._evaluation.run_one(task, n, *place) if outcome is None else pickle.loads(outcome).replay()

    def _parameters_of(self, group):
        return [self._parameters[j] for j in group]

    def _run(self, function, shared, calls):
        for i, result in run_jobs(function, shared, calls, self._backend, self._members.n_jobs):
            yield i, result
            self._progress.advance(self._candidates.n_epochs(self._groups[i][1]))
