"""TPE's density over a joint space, computed for all parameters at once instead of one by one as in Optuna."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from scipy.special import log_ndtr, ndtri_exp

Floats = NDArray[np.float64]


class Layout:
    """What is the same for every density over a space: which parameters are numeric, and their ranges."""

    def __init__(self, space: Mapping[str, BaseDistribution]) -> None:
        self.names = list(space)
        of = list(space.values())
        self.categorical = np.array([i for i, one in enumerate(of) if isinstance(one, CategoricalDistribution)], int)
        self.numeric = np.array([i for i, one in enumerate(of) if not isinstance(one, CategoricalDistribution)], int)
        self.num_choices = np.array([len(of[i].choices) for i in self.categorical], int)
        numbers = [one for one in of if isinstance(one, FloatDistribution | IntDistribution)]
        self.is_log = np.array([one.log for one in numbers], bool)
        self.step = np.array([one.step or 0.0 for one in numbers])
        self.low, self.high = (np.array([float(getattr(one, end)) for one in numbers]) for end in ("low", "high"))
        self.left = self.into(self.low - self.step / 2)
        self.right = self.into(self.high + self.step / 2)

    def into(self, values: Floats) -> Floats:
        """Transform numeric values (..., numbers) to the scale of the kernels, which may be logarithmic."""
        return np.where(self.is_log, np.log(np.where(self.is_log, values, 1.0)), values)

    def out_of(self, values: Floats) -> Floats:
        """Invert `into`, and round to the steps of a range."""
        values = np.where(self.is_log, np.exp(np.where(self.is_log, values, 0.0)), values)
        steps = np.where(self.step > 0, self.step, 1.0)
        on_steps = np.clip(self.low + np.round((values - self.low) / steps) * steps, self.low, self.high)
        return np.where(self.step > 0, on_steps, values)

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """Position of the first choice of each categorical parameter in a row of all choices."""
        return np.concatenate([[0], np.cumsum(self.num_choices)])[:-1].astype(np.int64)


class Options(Protocol):
    """The options of TPESampler that its densities use."""

    @property
    def weights(self) -> Callable[[int], Floats]:
        """A function from a number of observations to the weight of each."""

    @property
    def prior_weight(self) -> float:
        """The weight of the prior, which is the last kernel."""

    @property
    def consider_magic_clip(self) -> bool:
        """Whether no kernel is narrower than a share of its range."""

    @property
    def consider_endpoints(self) -> bool:
        """Whether the ends of a range count as neighbours of the outermost observations."""


class JointParzenEstimator:
    """The same density and the same draws as Optuna's, up to rounding; several times faster over fifty parameters.

    Source: Watanabe, Tree-Structured Parzen Estimator (2023), as in optuna.samplers._tpe.
    """

    def __init__(
        self,
        observations: dict[str, Floats],
        search_space: dict[str, BaseDistribution],
        parameters: Options,
        predetermined_weights: Floats | None = None,
        *,
        layout: Layout | None = None,
    ) -> None:
        self._layout = layout = layout or Layout(search_space)
        rows = np.array([observations[name] for name in layout.names]).T.reshape(-1, len(layout.names))
        num_rows = len(rows)
        weights = predetermined_weights
        if weights is None:
            weights = np.asarray(parameters.weights(num_rows))[:num_rows]
        weights = np.append(weights, [parameters.prior_weight]) if num_rows else np.array([1.0])
        self._weights = weights / weights.sum()
        self._choices = self._choice_weights(rows[:, layout.categorical].astype(int), parameters.prior_weight)
        self._mu, self._sigma = self._kernels(layout.into(rows[:, layout.numeric]), parameters)
        self._log_mass = _log_mass((layout.left - self._mu) / self._sigma, (layout.right - self._mu) / self._sigma)

    def _choice_weights(self, observed: NDArray[np.int64], prior_weight: float) -> Floats:
        """Probability of each choice in each kernel, of shape (kernels, all choices); the prior's kernel is last."""
        layout, num_kernels = self._layout, len(observed) + 1
        weights = np.full((num_kernels, int(layout.num_choices.sum())), prior_weight / num_kernels)
        weights[np.arange(len(observed))[:, None], layout.offsets + observed] += 1
        sums = np.repeat(prior_weight * layout.num_choices / num_kernels, layout.num_choices)
        weights[:-1] /= sums + 1
        weights[-1] /= sums
        return weights

    def _kernels(self, mu: Floats, parameters: Options) -> tuple[Floats, Floats]:
        """Centres and widths (kernels, numbers).

        A width is the larger gap to a neighbour; the prior's kernel is last.
        """
        left, right, num_kernels = self._layout.left, self._layout.right, len(mu) + 1
        order = np.argsort(mu, axis=0)
        ordered = np.concatenate([left[None], np.take_along_axis(mu, order, axis=0), right[None]])
        gaps = np.diff(ordered, axis=0)
        widths = np.maximum(gaps[:-1], gaps[1:])
        if not parameters.consider_endpoints and len(ordered) >= 4:
            widths[0], widths[-1] = gaps[1], gaps[-2]
        sigma = np.empty_like(mu)
        np.put_along_axis(sigma, order, widths, axis=0)
        least = (right - left) / min(100.0, 1.0 + num_kernels) if parameters.consider_magic_clip else 1e-12
        sigma = np.clip(sigma, least, right - left)
        return np.concatenate([mu, [(left + right) / 2]]), np.concatenate([sigma, [right - left]])

    def sample(self, rng: np.random.RandomState, size: int) -> dict[str, Floats]:
        """Draw `size` values of every parameter, in Optuna's internal representation."""
        layout = self._layout
        kernels = rng.choice(len(self._weights), p=self._weights, size=size)
        drawn = np.empty((size, len(layout.names)))
        quantiles = rng.rand(len(layout.categorical), size)
        for number, (start, count) in enumerate(zip(layout.offsets, layout.num_choices, strict=True)):
            up_to = np.cumsum(self._choices[kernels, start : start + count - 1], axis=1)
            drawn[:, layout.categorical[number]] = (up_to < quantiles[number][:, None]).sum(axis=1)
        if len(layout.numeric):
            mu, sigma = self._mu[kernels], self._sigma[kernels]
            quantiles = rng.uniform(size=(len(layout.numeric), size)).T
            points = _truncated(quantiles, (layout.left - mu) / sigma, (layout.right - mu) / sigma)
            drawn[:, layout.numeric] = layout.out_of(points * sigma + mu)
        return {name: drawn[:, number] for number, name in enumerate(layout.names)}

    def log_pdf(self, samples_dict: dict[str, Floats]) -> Floats:
        """Logarithm of the density at each sample."""
        layout = self._layout
        samples = np.array([samples_dict[name] for name in layout.names]).T
        chosen = np.zeros((len(samples), self._choices.shape[1]))
        chosen[np.arange(len(samples))[:, None], layout.offsets + samples[:, layout.categorical].astype(int)] = 1
        # Not by BLAS, whose threads would wait for the cores that train.
        log_pdf = np.einsum("sc,kc->sk", chosen, np.log(self._choices)) + np.log(self._weights)
        values = samples[:, layout.numeric]
        is_discrete = layout.step > 0
        log_pdf += self._log_continuous(layout.into(values), ~is_discrete)
        log_pdf -= np.where(is_discrete, self._log_mass, 0.0).sum(axis=1)
        for number in np.flatnonzero(is_discrete):
            log_pdf += self._log_of_steps(values[:, number], int(number))
        highest = log_pdf.max(axis=1)
        result: Floats = np.log(np.exp(log_pdf - highest[:, None]).sum(axis=1)) + highest
        return result

    def _log_continuous(self, values: Floats, which: NDArray[np.bool_]) -> Any:
        """Log density of the numbers without steps, all together: (samples, kernels)."""
        mu, sigma = self._mu[:, which], self._sigma[:, which]
        squares = ((values[:, None, which] - mu) / sigma) ** 2
        rest = np.log(sigma) + 0.5 * np.log(2 * np.pi) + self._log_mass[:, which]
        return -0.5 * squares.sum(axis=2) - rest.sum(axis=1)

    def _log_of_steps(self, values: Floats, number: int) -> Floats:
        """Log density of one number with steps: the mass around each of its few values, of shape (samples, kernels)."""
        layout = self._layout
        different, inverse = np.unique(values, return_inverse=True)
        ends = np.stack([different - layout.step[number] / 2, different + layout.step[number] / 2])
        ends = np.log(ends) if layout.is_log[number] else ends
        left, right = (ends[:, :, None] - self._mu[:, number]) / self._sigma[:, number]
        return _log_mass(left, right)[inverse]


def _log_mass(left: Floats, right: Floats) -> Floats:
    """Log of the mass of a standard normal between two points, computed in the tail in which it is exact."""
    is_right = left > 0
    low, high = np.where(is_right, -right, left), np.where(is_right, -left, right)
    log_high = log_ndtr(high)
    result: Floats = log_high + np.log1p(-np.exp(log_ndtr(low) - log_high))
    return result


def _truncated(quantiles: Floats, left: Floats, right: Floats) -> Floats:
    """Return the points of a truncated standard normal at these quantiles."""
    is_right = left >= 0
    low, high = np.where(is_right, -right, left), np.where(is_right, -left, right)
    quantiles = np.where(is_right, 1 - quantiles, quantiles)
    points = ndtri_exp(np.logaddexp(log_ndtr(low), np.log(quantiles) + _log_mass(low, high)))
    result: Floats = np.clip(np.where(is_right, -points, points), left, right)
    return result
