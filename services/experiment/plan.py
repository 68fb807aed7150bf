"""The whole plan: a tree of sections that refuse unknown keys."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from services.experiment import contradictions
from services.experiment.algorithm import AggregatorPlugin, Optimizer, aggregator_named
from services.experiment.base import Number, Positive, Section, Seed, Truth
from services.experiment.data import Data
from services.experiment.methods import EarlyStop, Fairness, MetricPlugin, Robust, SamplerPlugin
from services.experiment.model import Model, Preset, named
from services.experiment.plugins import plugin
from services.experiment.privacy import Privacy

Secagg = Literal["masking", "joye-libert"]
Compression = Literal["none", "float16"]


class Train(Section):
    """One client's work in one round.

    Attributes:
        batch_size: images a local step.
        epochs: passes over the client's training images a round.
        steps: most local steps a round, or null for as many as the epochs hold.
        shuffle: draw a new order of images for each pass.
    """

    batch_size: Positive = 64
    epochs: Positive = 1
    steps: Positive | None = None
    shuffle: Truth = True


class Evaluate(Section):
    """Evaluation on each client's validation images, after every round.

    Attributes:
        batch_size: images a step; changes speed and memory, not the figures.
    """

    batch_size: Positive = 500


class Federation(Section):
    """Who takes part, and how long they are waited for.

    Attributes:
        min_clients: fewest clients a round counts with (quorum).
        join_timeout: seconds the server waits for the first CLIENTS clients.
        join_grace: seconds without a newcomer after which the federation starts, once CLIENTS are there.
        round_timeout: seconds a round may take; who has not answered by then is left out of it (straggler).
        quorum_timeout: seconds the server waits for clients to return when fewer than `min_clients` are left.
        rejoin_grace: seconds that the seat of a client whose connection was lost is kept for it.
    """

    min_clients: Positive = 1
    join_timeout: Annotated[Number, Field(gt=0)] = 300.0
    join_grace: Annotated[Number, Field(ge=0)] = 3.0
    round_timeout: Annotated[Number, Field(gt=0)] = 600.0
    quorum_timeout: Annotated[Number, Field(ge=0)] = 120.0
    rejoin_grace: Annotated[Number, Field(ge=0)] = 30.0


class Plan(Section):
    """A whole experiment.

    Attributes:
        rounds: rounds of training.
        seed: of the split, the initial weights and the order of images.
        deterministic: make a run that is stopped and resumed equal one that is not, at the price of sending the
            clients' optimizer states to the server after each round.
        sampling: who of those that are there takes part in a round.
        metrics: what the clients compute on their validation images beside loss and accuracy.
        secagg: method of secure aggregation, by which the server reads only the sum of what clients send, or null.
        privacy: differential privacy, or null.
        compression: how weights and updates travel: as they are, or as float16, in half as many bytes.
    """

    rounds: Positive = 5
    seed: Seed = 0
    deterministic: Truth = False
    data: Data = Data()
    model: Annotated[Model, BeforeValidator(named, json_schema_input_type=Preset | Model)] = Model()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    optimizer: Optimizer = Optimizer()
    aggregator: Annotated[AggregatorPlugin, BeforeValidator(aggregator_named)] = AggregatorPlugin()
    sampling: Annotated[SamplerPlugin, BeforeValidator(plugin)] = SamplerPlugin()
    metrics: tuple[Annotated[MetricPlugin, BeforeValidator(plugin)], ...] = ()
    early_stop: EarlyStop = EarlyStop()
    fairness: Fairness = Fairness()
    robust: Robust = Robust()
    secagg: Secagg | None = None
    privacy: Privacy | None = None
    compression: Compression = "none"
    federation: Federation = Federation()

    @model_validator(mode="after")
    def _agree(self) -> Self:
        """Refuse sections that contradict each other."""
        contradictions.refuse(self)
        return self
