"""K networks of one shape in lockstep over flat storage; K = 1 is the ordinary network."""

import functools
from functools import partial

import torch

from skdnn.engine.layers import Activate, BatchNormalization, Dense, Dropout, OneByOne
from skdnn.engine.rounded import RoundedDense
from skdnn.engine.rows import take_rows
from skdnn.engine.runs import part_of, stacked_runs
from skdnn.engine.storage import FlatStorage

# Elements that one block of a prediction may occupy in all its activations: 16 MiB in float32, within reach of a cache.
_BLOCK_ELEMENTS = 2**22


class Network:
    """Layers, parameters and running statistics of K networks that are trained in lockstep.

    The networks have the same layers; initial draws, penalties, constraints and dropout rates may differ in their numbers.

    Parameters
    ----------
    plans : sequence of NetworkPlan
        One a network.
    dtype : torch.dtype
    device : torch.device
    dropout_seeds : sequence of int, default=None
        One a network; needed where there is dropout.
    generators : sequence of torch.Generator, default=None
        Given instead of seeds, to go on with their streams.
    gradients : dict, default=None
        Gradients of networks that take turns with these, of which one that fits is used, too; a new one is added.

    Attributes
    ----------
    parameters : FlatStorage
        In the order of `torch.nn.Sequential.parameters`: kernel, bias, scale and shift of each layer.
    gradient : Tensor of shape (n_networks * n_parameters,)
        Like ``parameters.data``.
    statistics : FlatStorage
        Running means and variances of batch norm.
    """

    def __init__(self, plans, dtype, device, dropout_seeds=None, generators=None, gradients=None):
        self.plans = tuple(plans)
        self.n_networks = len(self.plans)
        _check_same_shape(self.plans)
        shapes, statistic_shapes = [], []
        for layer in self.plans[0].layers:
            shapes += [(layer.n_out, layer.n_in), (layer.n_out,)]
            if layer.batch_norm is not None:
                shapes += [(layer.n_out,), (layer.n_out,)]
                statistic_shapes += [(layer.n_out,), (layer.n_out,)]
        self.parameters = FlatStorage(shapes, self.n_networks, dtype, device)
        self.statistics = FlatStorage(statistic_shapes, self.n_networks, dtype, device)
        self.gradient = self._make_gradient({} if gradients is None else gradients)
        self._generators = generators or [
            torch.Generator(device).manual_seed(seed) if plan.uses_dropout else None
            for plan, seed in zip(self.plans, dropout_seeds or [0] * self.n_networks, strict=True)
        ]
        self._no_penalty = self.gradient.new_zeros(self.n_networks)
        self._build()

    @property
    def n_outputs(self):
        """Units of the output layer."""
        return self.plans[0].layers[-1].n_out

    @property
    def dtype(self):
        """The dtype that the network computes in."""
        return self.parameters.data.dtype

    @property
    def device(self):
        """The device that the network is on."""
        return self.parameters.data.device

    def _make_gradient(self, gradients):
        like = self.parameters.data
        key = like.shape, like.dtype, like.device
        if key not in gradients:
            with torch.inference_mode(False):
                gradients[key] = torch.zeros_like(like)
        return gradients[key]

    def _build(self):
        """Make the layers over views of the storage."""
        like = self.parameters.data
        tensors = zip(self.parameters.views(), self.parameters.views(self.gradient), strict=True)
        statistics = iter(self.statistics.views())
        input_dropout = [plan.input_dropout for plan in self.plans]
        n_features = self.plans[0].layers[0].n_in
        self.layers = [Dropout(input_dropout, self._generators, n_features, like)] if any(input_dropout) else []
        self._regularized, self._constrained = [], []
        dense = RoundedDense if self.plans[0].rounds_products else Dense
        for index, aligned in enumerate(zip(*(plan.layers for plan in self.plans), strict=True)):
            layer = aligned[0]
            (kernel, kernel_gradient), (bias, bias_gradient) = next(tensors), next(tensors)
            self.layers.append(
                dense(
                    kernel,
                    bias,
                    kernel_gradient,
                    bias_gradient,
                    self.n_networks,
                    is_first=index == 0,
                    is_normalized=layer.batch_norm is not None,
                )
            )
            self._add_penalties(aligned, kernel, kernel_gradient)
            if layer.batch_norm is not None:
                (scale, scale_gradient), (shift, shift_gradient) = next(tensors), next(tensors)
                mean, variance = next(statistics), next(statistics)
                scale.fill_(1.0)
                variance.fill_(1.0)
                all_tensors = scale, shift, scale_gradient, shift_gradient, mean, variance
                if self.n_networks == 1:
                    self.layers.append(BatchNormalization(*all_tensors, layer.batch_norm))
                else:
                    each = zip(*all_tensors, strict=True)
                    norms = [BatchNormalization(*own, other.batch_norm) for own, other in zip(each, aligned, strict=True)]
                    self.layers.append(OneByOne(norms, layer.n_out, like))
            if layer.activation is not None:
                activations = [own.activation for own in aligned]
                self.layers.append(Activate(activations, layer.n_out, like))
            rates = [own.dropout for own in aligned]
            if any(rates):
                self.layers.append(Dropout(rates, self._generators, layer.n_out, like))
        self._drops = [layer for layer in self.layers if isinstance(layer, Dropout)]
        self._norms = [layer for layer in self.layers if isinstance(layer, BatchNormalization | OneByOne)]
        first_dense = next(i for i, layer in enumerate(self.layers) if isinstance(layer, Dense))
        self._backward_chain = [*self.layers[:first_dense:-1], self.layers[first_dense]]

    def _add_penalties(self, aligned, kernel, kernel_gradient):
        """Note what is to be done to a kernel's gradient, and to the kernel after an update."""

        def part(tensor, run):
            return part_of(tensor, run, self.n_networks)

        for run, regularizer in stacked_runs([layer.regularizer for layer in aligned], 2, kernel):
            self._regularized.append((run, regularizer, part(kernel, run), part(kernel_gradient, run)))
        for run, constraint in stacked_runs([layer.constraint for layer in aligned], 2, kernel):
            self._constrained.append((constraint, part(kernel, run)))

    def initialize(self, seeds):
        """Draw the kernels of each network from its own seed.

        Parameters
        ----------
        seeds : sequence of int
            One a network. A network's draws do not depend on the networks beside it.
        """
        for k, (plan, seed) in enumerate(zip(self.plans, seeds, strict=True)):
            generator = torch.Generator().manual_seed(seed)
            kernels = [tensor for tensor in self.parameters.network(k) if tensor.dim() == 2]
            with torch.inference_mode(False), torch.no_grad():
                for layer, kernel in zip(plan.layers, kernels, strict=True):
                    draws = torch.empty(kernel.shape, dtype=torch.float64)
                    layer.initializer.fill(draws, generator, layer.gain)
                    kernel.copy_(draws)

    def record(self, x, out, output_gradient, loss_gradient, row_weights=None, masks=()):
        """Return the calls of one training pass over a batch, which fill `out` and `gradient`.

        Parameters
        ----------
        x : Tensor of shape (n_rows, n_features) or (n_networks, n_rows, n_features)
        out : Tensor of shape ([n_networks,] n_rows, n_outputs)
            For the output layer's values.
        output_gradient : Tensor like `out`
            For the loss' gradient with respect to them.
        loss_gradient : callable
            The call that fills `output_gradient` from `out`.
        row_weights : tuple of Tensor, default=None
            Of shape ([n_networks or 1,] n_rows, 1), what each row is of the batch; and ([n_networks or 1,] 1, 1), how many
            rows the batch counts as. Rows count the same by default.
        masks : sequence of Tensor, default=()
            Of the batch, one for each of what `make_masks` returns.

        Returns
        -------
        calls : list of callable
            To be made in their order, as often as there are new values in `x`.
        """
        program = []
        for layer in self._norms:
            layer.row_weights = row_weights
        for layer, mask in zip(self._drops, masks, strict=True):
            layer.mask = mask
        for layer in self.layers:
            x, calls = layer.forward(x, out if layer is self.layers[-1] else None)
            program += calls
        program.append(loss_gradient)
        gradient = output_gradient
        for layer in self._backward_chain:
            gradient, calls = layer.backward(gradient)
            program += calls
        return program

    def make_masks(self, n_batches, n_rows):
        """Return the dropout masks of `n_batches` batches of `n_rows` rows, a list of `Masks`."""
        return [layer.make_masks(n_batches, n_rows) for layer in self._drops]

    def record_penalty_gradients(self):
        """Return the calls that add the penalties' gradients to `gradient`."""
        if not self._regularized:
            return []
        scratch = torch.empty_like(self.gradient)
        return [
            partial(regularizer.add_gradient, kernel, gradient, scratch[: kernel.numel()].view(kernel.shape))
            for _, regularizer, kernel, gradient in self._regularized
        ]

    def record_projections(self):
        """Return the calls that put every kernel back onto its constraint."""
        return [partial(constraint.project, kernel) for constraint, kernel in self._constrained]

    @property
    def is_penalized(self):
        """Whether there are penalties."""
        return bool(self._regularized)

    def penalty(self):
        """Return the sum of each network's penalties, a tensor of shape (n_networks,)."""
        if not self._regularized:
            return self._no_penalty
        if self.n_networks == 1:
            return functools.reduce(torch.add, (own.penalty(kernel) for _, own, kernel, _ in self._regularized)).view(1)
        total = torch.zeros_like(self._no_penalty)
        for run, regularizer, kernel, _ in self._regularized:
            total[run] += regularizer.penalty(kernel)
        return total

    @property
    def block_size(self):
        """Rows that a prediction takes at a time, a function of the shape alone, so that results do not depend on the rows."""
        widths = [layer.n_in + layer.n_out for layer in self.plans[0].layers]
        return max(1, _BLOCK_ELEMENTS // (self.n_networks * max(widths)))

    def infer(self, x):
        """Return the output layer's values for a block of rows, without noise and with running statistics.

        Parameters
        ----------
        x : Tensor of shape (n_rows, n_features)

        Returns
        -------
        outputs : Tensor of shape ([n_networks,] n_rows, n_outputs)
        """
        for layer in self.layers:
            x = layer.infer(x)
        return x

    def predict(self, X, rows=None):
        """Return the output layer's values for any number of rows, computed block by block.

        Parameters
        ----------
        X : Tensor of shape (n_samples, n_features), or scipy CSR array or matrix of that shape
            On any device, of any dtype.
        rows : Tensor of shape (n_rows,), default=None
            Indices of the rows that are asked for, by default all.

        Returns
        -------
        outputs : Tensor of shape ([n_networks,] n_rows, n_outputs)
            On the CPU.
        """
        n_rows = X.shape[0] if rows is None else len(rows)
        blocks = [slice(start, start + self.block_size) for start in range(0, n_rows, self.block_size)] or [slice(0, 0)]
        with torch.inference_mode():

            def outputs_of(block):
                some = take_rows(X, block if rows is None else rows[block])
                return self.infer(some.to(self.device, self.dtype)).cpu()

            if len(blocks) == 1:
                return outputs_of(blocks[0])
            leading = () if self.n_networks == 1 else (self.n_networks,)
            outputs = torch.empty(*leading, n_rows, self.n_outputs, dtype=self.dtype)
            for block in blocks:
                outputs[..., block, :] = outputs_of(block)
            return outputs

    def __getstate__(self):
        return {
            "plans": self.plans,
            "dtype": self.dtype,
            "parameters": self.parameters.data.cpu().numpy(),
            "statistics": self.statistics.data.cpu().numpy(),
        }

    def __setstate__(self, state):
        # On the CPU wherever it was trained, and in memory of its own: arrays of a pickle may be read-only maps of a file.
        self.__init__(state["plans"], state["dtype"], torch.device("cpu"))
        self.restore([torch.tensor(state[name]) for name in ("parameters", "statistics")])

    def select(self, indices):
        """Return a network of some of the networks, with their parameters, statistics and streams of dropout.

        Parameters
        ----------
        indices : list of int
        """
        chosen = Network(
            [self.plans[k] for k in indices], self.dtype, self.device, generators=[self._generators[k] for k in indices]
        )
        chosen.restore(self.snapshot(indices))
        return chosen

    def assign(self, k, snapshot):
        """Put network `k` to a snapshot of one network."""
        with torch.no_grad():
            self.parameters.assign(k, snapshot[0])
            self.statistics.assign(k, snapshot[1])

    def snapshot(self, indices=None):
        """Return a copy of the parameters and statistics of some networks, by default all."""
        if indices is None:
            return self.parameters.copy(), self.statistics.copy()
        return self.parameters.select(indices), self.statistics.select(indices)

    def restore(self, snapshot):
        """Put parameters and statistics back to a snapshot."""
        with torch.no_grad():
            self.parameters.data.copy_(snapshot[0])
            self.statistics.data.copy_(snapshot[1])


def _check_same_shape(plans):
    """Refuse networks that do not run the same sequence of kernels."""

    def shape(plan):
        return [(layer.n_in, layer.n_out, layer.activation is None, layer.batch_norm is None) for layer in plan.layers]

    for plan in plans[1:]:
        if shape(plan) != shape(plans[0]):
            raise ValueError(
                "networks in lockstep need the same layer sizes, and batch norm in the same places, got "
                f"{shape(plans[0])} and {shape(plan)}."
            )
        if plan.rounds_products != plans[0].rounds_products:
            raise ValueError("networks in lockstep need the same products, got rounded and other ones.")
