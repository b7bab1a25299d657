"""What a run begins with: the network, and sets that fit it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vmkla.cpu_features import lacks_bfloat16
from vmkla.data.arrays import LabelledArrays
from vmkla.errors import BadInputError, UsageError
from vmkla.models.checkpoints import description_of, load_weights
from vmkla.models.vmamba import load_vmamba_encoder
from vmkla.models.vmkla_unet import build_model
from vmkla.ops import backends
from vmkla.training.config import TrainConfig
from vmkla.training.processes import Processes
from vmkla.training.run_folder import read_folder
from vmkla.training.sets import load_sets

Network = Callable[[TrainConfig], nn.Module]


@dataclass(frozen=True)
class Start:
    """What a run begins with.

    Attributes:
        train_set, val_set: the images, in memory.
        model: the network, on its device, equal on all processes.
        state: of the run to resume; None for a new one.
    """

    train_set: LabelledArrays
    val_set: LabelledArrays
    model: nn.Module
    state: dict[str, Any] | None


def prepare(
    config: TrainConfig, network: Network | None, processes: Processes, say: Callable[[str], None]
) -> Start:
    """Make the network, read the state and the images. Talks to no other process, and writes nothing.

    Raises:
        UsageError: the folder, the batch, the classes or the weights do not fit the configuration.
        BadInputError: images or files are missing or wrong.
        MissingDependencyError: the backend of the ops is absent.
    """
    if config.batch_size % processes.ranks.world:
        raise UsageError(
            f"a batch of {config.batch_size} cannot be shared by {processes.ranks.world} processes",
            hint="Choose a batch that the number of processes divides.",
        )
    # What the network lacks is found out before the images are read, not after it.
    backend = backends.choose(config.backend, torch.empty(1, device=processes.device))
    say(f"the scan runs on {processes.device} by backend {backend}")
    if config.precision == "bf16" and processes.device.type == "cpu" and lacks_bfloat16():
        say("bf16 is slow on this CPU, which lacks AVX-512: fp32 takes a fraction of the time")
    memory = torch.channels_last if config.channels_last else torch.preserve_format
    model = _initial_model(config, network, say)
    model = model.to(processes.device, memory_format=memory)  # type: ignore[call-overload]
    state = read_folder(config)
    train_set, val_set = load_sets(config, say)
    _check_classes(config, train_set, val_set)
    if state is not None:
        _check_names(state, train_set, val_set)
    return Start(train_set, val_set, model, state)


def _initial_model(config: TrainConfig, network: Network | None, say: Callable[[str], None]) -> nn.Module:
    """The network as the run begins, equal on all processes."""
    torch.manual_seed(config.seed)
    if network is not None:
        if config.init is not None or config.init_encoder is not None:
            raise UsageError("init and init_encoder are for vmkla's own network, and another one is given")
        foreign = network(config)
        description_of(foreign)  # found out before the first epoch, not after it
        return foreign
    if config.init is not None:
        loaded = load_weights(config.init, backend=config.backend)
        if loaded.config != config.model_config:
            raise UsageError(
                f"{config.init} holds another network than the one to train:\n"
                f"  {loaded.config}\n  {config.model_config}",
                hint="Choose the model that the weights belong to.",
            )
        return loaded.model
    model = build_model(config.model_config, config.backend)
    if config.init_encoder is not None:
        say(str(load_vmamba_encoder(model, config.init_encoder)))
    return model


def _check_classes(config: TrainConfig, *sets: LabelledArrays) -> None:
    """Every label must have an output channel."""
    allowed = max(1, len(config.names_of_classes) - 1)
    top = max((int(images.masks.max()) for images in sets if not images.soft), default=0)
    if top > allowed:
        raise BadInputError(
            f"a mask holds class {top}, and the network knows {', '.join(config.names_of_classes)}",
            hint="Give the network as many classes as the masks have.",
        )


def _check_names(state: dict[str, Any], train_set: LabelledArrays, val_set: LabelledArrays) -> None:
    """A resumed run has the images that it began with."""
    for kind, images in (("train", train_set), ("val", val_set)):
        then = state[f"{kind}_names"]
        if then != list(images.names):
            raise UsageError(
                f"the {kind} set has changed: {len(then)} images then, {len(images)} now, or others",
                hint="Put the images back, or start a new run in another folder.",
            )
