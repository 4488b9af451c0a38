"""One replica's instruments while it trains: the probe at its interval, and decoded samples."""

from __future__ import annotations

from typing import TypedDict

from rnnlstm.instruments.probe import Probe
from rnnlstm.models import Network, Replicas
from rnnlstm.record.reader import Sample
from rnnlstm.record.seed_record import SeedRecord
from rnnlstm.training.plan import Plan

#: Sequences that are decoded at the start, midway and at the end.
SAMPLES = 4


class InstrumentsState(TypedDict):
    """What a replica's instruments have recorded already."""

    sampled_at: list[int]  #: updates after which samples were decoded
    midway_due: bool


class Instruments:
    """Observes replica number `replica` of `model`, and writes into its `record`."""

    def __init__(self, plan: Plan, model: Replicas, replica: int, seed: int, record: SeedRecord) -> None:
        self.plan, self.model, self.replica, self.record = plan, model, replica, record
        self.record_seed = seed
        self.on = plan.config.probe.name != "off"
        self._sampled_at: set[int] = set()
        self._midway_due = True
        if self.on:
            self.probe = Probe(plan.task, seed, plan.config.train.batch_size, plan.device)

    def state(self) -> InstrumentsState:
        return {"sampled_at": sorted(self._sampled_at), "midway_due": self._midway_due}

    def load_state(self, state: InstrumentsState) -> None:
        self._sampled_at, self._midway_due = set(state["sampled_at"]), state["midway_due"]

    def due(self, step: int) -> bool:
        return self.on and step % self.plan.config.probe.every == 0

    def observe(self, step: int) -> dict[str, float]:
        """What the probe measures after update `step`, by tag. The record gets the gradient through time."""
        seen = self.probe.look(self.model, self.replica)
        self.record.flow(step, {name: norms.cpu().numpy() for name, norms in seen.flow.items()})
        midway = self._midway_due and 2 * step >= self.plan.config.train.steps
        if step == 0 or midway:
            self._midway_due = not midway
            self.decode(step)
        values = self.probe.scalars(seen)
        return values | self._full() if self.plan.config.probe.name == "full" else values

    def _full(self) -> dict[str, float]:
        """What `probe=full` adds, in float64, on a copy of the network."""
        from rnnlstm.instruments.analysed_network import AnalysedNetwork
        from rnnlstm.instruments.measurement import full_scalars

        return full_scalars(AnalysedNetwork.of(self.plan.task, self._copy(), self.probe.batch))

    def at_end(self) -> dict[str, float]:
        """Counterfactual influence in the network that is about to finish, by tag."""
        if not self.on:
            return {}
        from rnnlstm.instruments.counterfactual import counterfactual_scalars

        return counterfactual_scalars(self.plan.task, self._copy(), self.record_seed, self.plan.device)

    def _copy(self) -> Network:
        """The replica's network, on the CPU."""
        network = self.plan.network(self.record_seed)
        network.load_state_dict({name: w.detach().cpu() for name, w in self.model.weights(self.replica).items()})
        return network

    def decode(self, step: int) -> None:
        """Record some sequences as text, each with the right answer, the model's, and whether they agree."""
        if not self.on or step in self._sampled_at:
            return
        self._sampled_at.add(step)
        task, batch = self.plan.task, self.probe.batch
        outputs = self.model.one(self.replica, batch.inputs).detach()
        count = min(SAMPLES, batch.size)
        samples: list[Sample] = [
            {
                "text": task.decode(batch, b),
                "answer": task.answer(outputs, batch, b),
                "right": task.right(outputs, batch, b),
            }
            for b in range(count)
        ]
        self.record.samples(step, samples)
