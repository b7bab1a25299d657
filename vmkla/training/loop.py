"""The training loop: epochs, validation, the best weights, and a state to resume from."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import nn

from vmkla.allocator import keep_freed_memory
from vmkla.cpus import torch_threads
from vmkla.data.arrays import LabelledArrays, TrainLoader, loader_workers
from vmkla.data.draws import Rows
from vmkla.errors import StoppedError, VmklaError
from vmkla.folders import locked_folder
from vmkla.training.averaging import WeightAverage
from vmkla.training.config import EpochReport, StepReport, TrainConfig, TrainResult
from vmkla.training.determinism import deterministic, random_state, restore_random_state, seed_process
from vmkla.training.inputs import Inputs
from vmkla.training.processes import Processes
from vmkla.training.progress import Progress
from vmkla.training.ranks import Ranks
from vmkla.training.records import TensorBoard
from vmkla.training.run_folder import (
    LAST,
    OUTPUTS,
    STATE,
    save_bad_batch,
    summarise,
    write_config,
    write_epoch,
)
from vmkla.training.schedules import learning_rate
from vmkla.training.start import Network, Start, prepare
from vmkla.training.state import save_state
from vmkla.training.steps import NotFiniteError, Stepper
from vmkla.training.stopping import StopFlag
from vmkla.training.transfers import HostValues
from vmkla.training.validation import Validation

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Watchers:
    """Who is told how the run goes; the first process tells, the others are silent.

    Attributes:
        on_epoch, on_step: called after every epoch and step; on a GPU a step is reported one step later.
        on_message: told in a sentence what a longer preparation does.
    """

    on_epoch: Callable[[EpochReport], None] | None = None
    on_step: Callable[[StepReport], None] | None = None
    on_message: Callable[[str], None] | None = None

    def say(self, line: str) -> None:
        """Call ``on_message``, when there is one."""
        if self.on_message is not None:
            self.on_message(line)


def train(
    config: TrainConfig,
    *,
    network: Network | None = None,
    ranks: Ranks | None = None,
    on_epoch: Callable[[EpochReport], None] | None = None,
    on_step: Callable[[StepReport], None] | None = None,
    on_message: Callable[[str], None] | None = None,
) -> TrainResult:
    """Train a network.

    Writes into ``config.out_dir``: ``config.json``, ``state.pt`` (to resume from), ``best.safetensors``
    and ``last.safetensors``, ``metrics.csv``, ``curves.png``, ``tensorboard/``.

    Args:
        config: everything that fixes the run.
        network: makes another network than ``config.model``, from normalised RGB (b, 3, H, W) to logits
            (b, classes, H, W). Its ``config`` attribute says what it is; see ``checkpoints.Description``.
        ranks: which of several processes this is; they share each batch, and the first one writes.
        on_epoch, on_step: called after every epoch and step, in the first process; on a GPU a step is
            reported one step later.
        on_message: told in a sentence what a longer preparation does, in the first process.
    Returns:
        How the run ended.
    Raises:
        BadInputError: data are missing or wrong (all problems are named at once), or files cannot be
            read or written.
        UsageError: the folder holds another run, or one is active there.
        StoppedError: SIGINT or SIGTERM; the state was saved.
        VmklaError: the loss is not finite, and the batch was saved to ``bad_batch.npz``; or another
            process of the run has failed.
    """
    threads_before = torch.get_num_threads()
    try:
        torch.set_num_threads(torch_threads(config.threads, threads_before))
        keep_freed_memory()
        processes = Processes(ranks or Ranks(), config.device)
        with deterministic(config.deterministic, processes.device), processes, ExitStack() as stack:
            watchers = Watchers(on_epoch, on_step, on_message or logger.info)
            if not processes.first:
                watchers = Watchers()
            processes.together(lambda: stack.enter_context(_folder(config, processes)))
            # Nothing here keeps the images that were read, of which the loader may make a shared copy.
            run = _Run(
                config,
                processes.together(lambda: prepare(config, network, processes, watchers.say)),
                processes,
                watchers,
            )
            with closing(run.loader):
                return run.go()
    finally:
        torch.set_num_threads(threads_before)


def _folder(config: TrainConfig, processes: Processes) -> AbstractContextManager[None]:
    """The run's folder, locked by the process that writes to it."""
    return locked_folder(config.out_dir, OUTPUTS, private=False) if processes.first else nullcontext()


def workers_of(config: TrainConfig, processes: Processes) -> int:
    """Return how many processes augment for this one."""
    if config.workers is not None:
        return config.workers
    return loader_workers(processes.device.type, processes.ranks.world)


def steps_unread(device: torch.device) -> int:
    """Return how many steps may be taken whose values the host has not read.

    On a GPU one: while the host waits for the values of a step, the device has the next one to work on.
    """
    return 1 if device.type == "cuda" else 0


@dataclass(frozen=True)
class _Taken:
    """A step that was taken, and whose values the host has not read.

    Attributes:
        step: its number in the epoch, from 1.
        lr: its learning rate.
        rows: of the training set that the batch is made of, see ``Draws``.
        batch: what it was taken on.
        values: see ``Stepper.take``.
    """

    step: int
    lr: float
    rows: Rows
    batch: LabelledArrays
    values: HostValues


class _Run:
    """One run: what changes from step to step, and the steps.

    Args:
        config: everything that fixes the run.
        start: what it begins with.
        processes: which share the work, entered.
        watchers: who is told.
    """

    def __init__(self, config: TrainConfig, start: Start, processes: Processes, watchers: Watchers) -> None:
        self.config, self.processes, self.watchers = config, processes, watchers
        self.flag = StopFlag()
        self.started_s = self.saved_s = self.ticked_s = time.monotonic()
        self.loader = processes.together(
            lambda: TrainLoader(
                start.train_set,
                batch_size=config.batch_size,
                size_hw=config.image_size_hw,
                config=config.augment,
                seed=config.seed,
                quiet_share=config.quiet_share,
                part=processes.ranks.share(config.batch_size),
                workers=workers_of(config, processes),
            )
        )
        self.train_set, self.val_set, self.draws = self.loader.arrays, start.val_set, self.loader.draws
        self.model = start.model
        self.stepper = Stepper(self.model, config, processes)
        self.average = WeightAverage(self.model, config.ema_decay) if config.ema_decay else None
        self.inputs = Inputs(processes.device, len(config.names_of_classes))
        self.validation = Validation(
            start.val_set,
            self.inputs,
            self.stepper.loss,
            batch_size=config.batch_size,
            threshold=config.threshold,
        )
        self.board = TensorBoard(
            config.out_dir / "tensorboard", wanted=config.tensorboard and processes.first
        )
        self.at = Progress()
        self.taken: deque[_Taken] = deque()
        self.steps_unread = steps_unread(processes.device)
        if start.state is not None:
            self._restore(start.state)
        elif not processes.first:  # the first process's random numbers continue from the weights'
            seed_process(config.seed, 0, processes.ranks)

    def go(self) -> TrainResult:
        """Run until the epochs are done or the time is up."""
        config = self.config
        self.processes.together(lambda: write_config(config) if self.processes.first else None)
        if self.at.epoch == config.epochs:
            self.watchers.say(f"nothing to do: all {config.epochs} epochs are finished")
        try:
            with self.flag:
                while self.at.epoch < config.epochs:
                    if self._agreed_stop().time_is_up or not self._train_epoch():
                        self._save()
                        return self.at.result(config, finished=False)
                    self._finish_epoch()
            return self.at.result(config, finished=True)
        finally:
            self.board.close()

    def _rate(self) -> float:
        config = self.config
        return learning_rate(
            self.at.epoch + self.at.step / self.loader.steps,
            lr=config.lr,
            min_lr=config.min_lr,
            t_max=config.t_max_epochs or max(config.epochs - config.warmup_epochs, 1e-9),
            warmup=config.warmup_epochs,
        )

    def _train_epoch(self) -> bool:
        """Steps of the current epoch from where it stands; False when the time is up."""
        config, steps = self.config, self.loader.steps
        self.model.train()
        rows = self.loader.rows(self.at.epoch)[self.at.step :]
        batches = self.loader.epoch(self.at.epoch, self.at.step)
        self.ticked_s = time.monotonic()
        try:
            for batch, of_batch in zip(batches, rows, strict=True):
                self._take_step(batch, of_batch, self._rate())
                self._read_steps(but_for=self.steps_unread)
                self._tick()
                stop = self._agreed_stop()
                if stop.signum:
                    self._save()
                    where = f"epoch {self.at.epoch + 1} after step {self.at.step} of {steps}"
                    raise StoppedError(
                        stop.signum,
                        f"training was stopped in {where}; continue with --resume ({config.out_dir / STATE})",
                    )
                if stop.time_is_up and self.at.step < steps:
                    return False
                if stop.save_is_due:
                    self._save()
            self._read_steps()
            self._tick()
        finally:
            batches.close()  # type: ignore[attr-defined]
        return True

    def _tick(self) -> None:
        """Add the wall time since the last call to the epoch's."""
        now_s = time.monotonic()
        self.at.seconds += now_s - self.ticked_s
        self.ticked_s = now_s

    def _agreed_stop(self) -> _Stop:
        """Signals and clocks of all processes: what one has seen, all heed at the same step."""
        now_s, limit = time.monotonic(), self.config.max_minutes
        signum, time_is_up, save_is_due = self.processes.highest(
            self.flag.signum or 0,
            limit is not None and now_s - self.started_s > 60 * limit,
            now_s - self.saved_s > 60 * self.config.save_minutes,
        )
        return _Stop(int(signum), bool(time_is_up), bool(save_is_due))

    def _take_step(self, batch: LabelledArrays, rows: Rows, lr: float) -> None:
        pixels, target = self.inputs(batch)
        values = HostValues(self.stepper.take(pixels, target, lr))
        if self.average is not None:
            self.average.update(self.model)
        self.at.step += 1
        self.taken.append(_Taken(self.at.step, lr, rows, batch, values))

    def _read_steps(self, but_for: int = 0) -> None:
        """Read the values of the steps that were taken, and report them.

        Nothing is judged or saved before all are read: one that is not finite ends the run.

        Args:
            but_for: how many of the last ones are left for later.
        """
        config = self.config
        while len(self.taken) > but_for:
            taken = self.taken.popleft()
            values = taken.values.read()
            try:
                loss = self.stepper.judge(values)
            except NotFiniteError as error:
                self._refuse_batch(taken, error)
            self.at.loss_sum += loss
            if self.config.quiet_share:
                self.draws.note(taken.rows, values[3:])
            if self.watchers.on_step is not None:
                self.watchers.on_step(
                    StepReport(
                        self.at.epoch + 1, config.epochs, taken.step, self.loader.steps, loss, taken.lr
                    )
                )

    def _refuse_batch(self, taken: _Taken, error: NotFiniteError) -> NoReturn:
        rank, where = self.processes.ranks.rank, "is with the process that had it"
        if error.own:
            path = self.config.out_dir / ("bad_batch.npz" if not rank else f"bad_batch-{rank}.npz")
            save_bad_batch(path, taken.batch)
            where = f"is in {path}"
        kept = f", and {LAST} holds the weights after epoch {self.at.epoch}" if self.at.epoch else ""
        raise VmklaError(
            f"{error} in epoch {self.at.epoch + 1}, step {taken.step}, expected a finite number; "
            f"the batch {where}{kept}",
            hint="Try a lower --lr, a longer --warmup-epochs or a --grad-clip.",
        )

    def _finish_epoch(self) -> None:
        begun_s = time.monotonic()
        self.draws.end_epoch(self.processes.gather(self.draws.noted))
        judged = self.model if self.average is None else self.average.model
        scores = self.validation.judge(judged, self.processes)
        report = self.at.close_epoch(
            self.config, scores, lr=self.stepper.lr, validation_s=time.monotonic() - begun_s
        )
        self.processes.together(lambda: self._write_epoch(judged, report))
        self._save()
        if self.watchers.on_epoch is not None:
            self.watchers.on_epoch(report)

    def _write_epoch(self, judged: nn.Module, report: EpochReport) -> None:
        if self.processes.first:
            summary = summarise(self.config, report, self.train_set, self.val_set)
            write_epoch(self.config, judged, self.at.history, summary)
            self.board.add(report)

    def _save(self) -> None:
        self._read_steps()
        random = self.processes.gather(random_state(self.processes.device))
        noted = self.processes.gather(self.draws.noted)
        self.processes.together(lambda: self._write_state(random, noted))
        self.saved_s = time.monotonic()

    def _write_state(self, random: list[dict[str, Any]], noted: list[Any]) -> None:
        if not self.processes.first:
            return
        state = {
            "progress": self.at.state(),
            "model": self.model.state_dict(),
            **self.stepper.state(),
            "random": random,
            "draws": self.draws.state(noted),
            "average": None if self.average is None else self.average.model.state_dict(),
            "average_steps": 0 if self.average is None else self.average.steps,
            "train_names": list(self.train_set.names),
            "val_names": list(self.val_set.names),
        }
        save_state(self.config.out_dir / STATE, state, self.config)

    def _restore(self, state: dict[str, Any]) -> None:
        self.at = Progress.from_state(state["progress"])
        self.model.load_state_dict(state["model"])
        self.stepper.restore(state)
        if "draws" in state:  # missing in a state from before the quiet share existed
            self.draws.restore(state["draws"])
        if self.average is not None:
            self.average.model.load_state_dict(state["average"])
            self.average.steps = int(state["average_steps"])
        ranks = self.processes.ranks
        if len(state["random"]) == ranks.world:
            restore_random_state(state["random"][ranks.rank], self.processes.device)
        else:
            self.watchers.say(
                f"the run was on {len(state['random'])} processes and is on {ranks.world} now: "
                "the same batches, other random numbers in the network"
            )
            seed_process(self.config.seed, self.at.epoch, ranks)


@dataclass(frozen=True)
class _Stop:
    """Why a run pauses: the signal's number or 0, the time, the state's age."""

    signum: int
    time_is_up: bool
    save_is_due: bool
