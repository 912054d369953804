"""Nets that train in lockstep: what asks each for its next epoch, and the population to run it."""

import math

from skdnn.training.policy import compute_policy
from skdnn.training.population import make_population


class Lockstep:
    """Nets in training together, each as it would be trained alone.

    Between two calls of `train` they are suspended: each has begun an epoch and not yet trained in it.

    Parameters
    ----------
    nets : list of TrainingRun
        Without callbacks, over lanes that can share a population.
    on_epoch : callable, default=None
        Given the lanes that are still in training, before each epoch and at the end.

    Attributes
    ----------
    running : list of TrainingRun
        Those that go on.
    ended : list of TrainingRun
        Those that came to their end. One that raised an error, which must not end the others, is in neither list.
    n_epochs : int
        Epochs that those which go on have trained.
    """

    def __init__(self, nets, on_epoch=None):
        self._lanes = {net: net.session for net in nets}
        self._population = make_population(list(self._lanes.values()))
        self._epochs = {net: net.epochs() for net in nets}
        self._plan = nets[0].session.plan
        self._on_epoch = on_epoch
        self.ended = []
        self.n_epochs = 0
        self._has_begun = False

    @property
    def running(self):
        return list(self._epochs)

    def train(self, n_epochs=math.inf):
        """Go on until so many epochs are over in all, by default until no net has any left.

        Parameters
        ----------
        n_epochs : int, default=inf
        """
        plan = self._plan
        work = plan.network.n_products * plan.batch_size  # as alone, whatever their number: threads change the last bits
        try:
            with compute_policy(work, plan.dtype, plan.device):
                if not self._has_begun:
                    self._has_begun = True
                    self._begin_epoch()
                while self._epochs and self.n_epochs < n_epochs:
                    self._population.train()
                    self.n_epochs += 1
                    self._begin_epoch()
        except BaseException:
            self.leave(self.running)
            raise

    def leave(self, nets):
        """Go on without some of the nets that are running; each ends as one that is interrupted."""
        if not nets:
            return
        for net in nets:
            self._epochs.pop(net).close()
        self._population.leave([self._lanes.pop(net) for net in nets])

    def _begin_epoch(self):
        """Have every net take what its epoch has come to, and begin its next one."""
        over = []
        for net, epochs in self._epochs.items():
            try:
                next(epochs)
            except StopIteration:
                over.append(net)
                self.ended.append(net)
            except Exception:
                over.append(net)
        self.leave(over)
        if self._on_epoch is not None:
            self._on_epoch(self._lanes.values())


def train_in_lockstep(nets, on_epoch=None):
    """Train nets together to their end.

    Parameters
    ----------
    nets : list of TrainingRun
        Without callbacks, over lanes that can share a population.
    on_epoch : callable, default=None
        As of `Lockstep`.

    Returns
    -------
    trained : list of TrainingRun
        Those that did not raise an error.
    """
    together = Lockstep(nets, on_epoch)
    together.train()
    return [net for net in nets if net in together.ended]
