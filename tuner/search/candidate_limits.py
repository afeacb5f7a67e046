"""CandidateLimits: what training a candidate costs, and how far it is beyond the limits of a search."""

from __future__ import annotations

from tuner.architecture.any_architecture import AnyArchitecture, cost_of
from tuner.architecture.backbone_network import BackboneNetwork
from tuner.data.stream_limit import StreamLimit
from tuner.search.memory_limit import memory_excess
from tuner.search.search_plan import SearchPlan
from tuner.search.size_limit import size_excess
from tuner.search.training_cost import training_cost
from tuner.space.sampling import Params, candidate_from
from tuner.training.candidate import Candidate


class CandidateLimits:
    """The limits that a search's plan sets to its candidates."""

    def __init__(self, plan: SearchPlan) -> None:
        self._plan = plan

    def excess(self, candidate: Candidate) -> tuple[float | None, str]:
        """How far a candidate is beyond the limits of its space and of the memory, and why; the first reason counts."""
        plan = self._plan
        cost, recipe = cost_of(candidate.architecture), candidate.recipe
        size = size_excess(cost, plan.space.max_parameters)
        memory = memory_excess(
            training_cost(candidate.architecture, self._num_images),
            recipe.batch_size,
            step_bytes=plan.memory_bytes,
            stream=self._stream_of(candidate.architecture),
            has_average=recipe.ema > 0,
        )
        excesses = [excess for excess, _ in (size, memory) if excess is not None]
        return max(excesses) if excesses else None, size[1] or memory[1]

    def work(self, params: Params) -> float:
        """The work of training the candidate of a configuration, by which configurations are compared."""
        return training_cost(self._candidate(params).architecture, self._num_images).work

    def is_too_large(self, params: Params) -> bool:
        """Whether the candidate of a configuration is beyond the limits, so that it would be rejected."""
        return bool(self.excess(self._candidate(params))[1])

    def _candidate(self, params: Params) -> Candidate:
        plan = self._plan
        return candidate_from(params, plan.space, plan.input_spec, epochs=plan.epochs)

    @property
    def _num_images(self) -> int:
        """Number of images whose features are stored; 0 if no network has any."""
        return 0 if self._plan.images is None else self._plan.images.num_images

    def _stream_of(self, architecture: AnyArchitecture) -> StreamLimit | None:
        """Limit for batches of a network; None if its images, or their features, are in memory."""
        if self._plan.images is None or not isinstance(architecture, BackboneNetwork):
            return self._plan.stream
        return self._plan.images.stream_limit(architecture)
