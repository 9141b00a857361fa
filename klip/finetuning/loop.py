"""Fine-tuning (paper §4.1): balanced draws, encoder and ArcFace, AdamW, block-wise rates.

Axes: B images of an optimiser step, b of them read here, S pixels a side, D numbers per
embedding.  On a CPU a run is a function of its config and images, to the bit for one
number of threads, whatever the workers and however often it was interrupted; on a GPU
kernels may add in another order.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import pandas as pd
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm.auto import tqdm

from klip.data.catalogue import Catalogue
from klip.finetuning import finished, interrupts, run_cache
from klip.finetuning.finished import Run
from klip.finetuning.prepare import Start
from klip.finetuning.validation import top1
from klip.model import blocks, readers
from klip.model.device import at_work, autocast
from klip.model.encoder import Encoder
from klip.settings.config import FinetuneConfig
from klip.settings.files import write_json

MINUTE, SAVING = 60.0, 0.02
"""Seconds between two states of a run that saves by time; the most of its time that this takes."""


def finetune(
    config: FinetuneConfig,
    catalogue: Catalogue,
    *,
    progress: bool = True,
    cache: bool = True,
    base: Encoder | None = None,
    loop: type[Loop] | None = None,
) -> Run:
    """Fine-tune `config.model` on the split `train`, seeing `config.images` images.

    catalogue: split `val`, if there is one, is the validation (`Catalogue.held_out`); a
    column `group` is the hierarchy of the triplet loss.
    base: an encoder to start from; `config.model` then only names it; it is not changed.
    cache: keep the run under CACHE/runs, find it there, go on with an interrupted one.
    loop: `scale.distributed.SharedLoop` where several processes make one run, inside a
    group of torch.distributed: all get the same run, one process's but for rounding.
    What was trained is kept whatever ends it, and the next call goes on from there.
    ValueError: wrong settings, a product without images, a damaged image, a loss not finite.
    MemoryError, OSError: one sentence.  Interrupted: Ctrl-C or SIGTERM came.
    """
    made = (loop or Loop)(config, catalogue, base=base, cache=cache)
    gpus = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    random = torch.random.fork_rng(gpus)
    with made.alone(), at_work(made.encoder), random, readers.one_sentence(config.batch_size):
        if made.found("run.json"):
            return finished.read(made.folder, config)
        made.begin()
        made.run(progress=progress)
        run = made.result()
        if cache:
            made.write(lambda: finished.write(run, made.precision, left_out=made.left_out))
    return run


def rate_factor(step: int, steps: int, *, warmup: float) -> float:
    """Of all rates at `step` from 0: a line up over `warmup` of the steps, half a cosine to 0."""
    rising = round(warmup * steps)
    if step < rising:
        return (step + 1) / (rising + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


class Loop(Start):
    """The loop: `begin`, `run`, what it calls in the order of a step, and hooks.

    Several processes share a loop that overrides the hooks (`klip.scale.distributed`).
    """

    def begin(self) -> None:
        """Put the centres in place, and make all else that changes from step to step."""
        config, tower = self.config, self.encoder.tower
        torch.manual_seed(config.seed)
        self.put_centres()
        self.head.to(self.device)
        self.average = None
        if config.ema:  # a copy, made before low blocks are frozen
            blend = get_ema_multi_avg_fn(config.ema)
            self.average = AveragedModel(tower, multi_avg_fn=blend)
        self.low = blocks.freeze(tower, config.frozen_blocks)
        self.optimiser, steps = self.adamw(), len(self.batches)
        self.weights = [w for group in self.optimiser.param_groups for w in group["params"]]
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimiser, lambda step: rate_factor(step, steps, warmup=config.warmup)
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        self.stateful = {"tower": tower, "head": self.head, "optimiser": self.optimiser}
        self.stateful |= {"schedule": self.schedule, "scaler": self.scaler}
        if self.average is not None:
            self.stateful["average"] = self.average
        self.forward = torch.compile(self.encoder) if config.compile else self.encoder
        self.done, self.seconds, self.history = 0, 0.0, list[dict[str, float]]()
        self.random = run_cache.random_state()
        self.saved, self.cost = time.perf_counter(), 0.0  # seconds

    def run(self, *, progress: bool = False) -> None:
        """Train to the end of the budget, from where an interrupted run stopped."""
        config, steps = self.config, len(self.batches)
        validate_every = config.validate_every or steps  # 0: not before the end
        self.restore()
        self.encoder.checkpointing(config.checkpointing)
        self.encoder.train()
        text = f"{config.loss}, {config.rates}, depth {config.depth}, seed {config.seed}"
        with tqdm(total=config.images, unit="img", desc=text, disable=not progress) as bar:
            started = time.perf_counter() - self.seconds
            with interrupts.noted() as asked, self.keeping():
                for images, labels in self.fetch():
                    self.random = run_cache.random_state()
                    rates = [group["lr"] for group in self.optimiser.param_groups]
                    loss = self.train_step(images, labels)  # forward, loss, backward, clip, step
                    self.done, self.seconds = self.done + 1, time.perf_counter() - started
                    self.log(loss, rates, bar=bar)
                    last = self.done == steps
                    if self.held and (last or self.done % validate_every == 0):
                        self.history[-1]["val_top1"] = top1(self.embedded(self.held), self.held)
                    self.random = run_cache.random_state()
                    if self.cache and not last and self.due():
                        self.save()
                    if asked() and not last:
                        raise interrupts.Interrupted(self.where())
                    started = time.perf_counter() - self.seconds  # without validating and saving
        self.encoder.checkpointing(False)
        self.encoder.eval()
        for weight in self.low:  # frozen for this run only
            weight.requires_grad_(True)

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Whatever ends the steps inside, what the last whole step made is saved."""
        try:
            yield
        except BaseException:
            if self.cache and self.done:
                self.save()
            raise

    def where(self) -> str:
        """How far an interrupted run got."""
        if not self.cache:
            return f"fine-tuning: interrupted at step {self.done} of {len(self.batches)}"
        return (
            f"fine-tuning: interrupted, saved at step {self.done} of {len(self.batches)}; the same "
            "call goes on from there"
        )

    def restore(self) -> None:
        """Go on from the state on disk; else begin with the accuracy of the frozen encoder."""
        if self.found("state.pt"):
            state = run_cache.restore(self.folder / "state.pt", self.stateful)
            self.done, self.seconds, self.history = state
        elif self.config.validate_every and self.held:
            accuracy = top1(self.embedded(self.held, remember=self.cache), self.held)
            self.history = [{"step": 0, "images": 0, "val_top1": accuracy}]

    def fetch(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Images (b, 3, S, S) and labels (b,) of each batch that is left."""
        return readers.batches(
            self.images,
            self.shares(),
            workers=self.config.workers,
            room=(self.config.batch_size, self.images.preprocess.size),
            beside=self.device.type == "cuda",
        )

    def shares(self) -> Iterator[list[list[int]]]:
        """The draws of each batch that is left whose images are read here."""
        for step in range(self.done, len(self.batches)):
            own = [self.own(part) for part in self.parts(self.batches[step])]
            share = torch.cat(own).tolist()
            if share:
                yield share

    def parts(self, batch: Tensor) -> tuple[Tensor, ...]:
        """The `accumulate` parts of a batch: less memory, the same step."""
        return batch.split(math.ceil(len(batch) / self.config.accumulate))

    def train_step(self, images: Tensor, labels: Tensor) -> float:
        """Forward, loss, backward, clip, step with the images (b, 3, S, S) and labels (b,)
        read here; the mean loss of the whole batch."""
        batch, total = self.batches[self.done], 0.0
        parts = self.parts(batch)
        own = [len(self.own(part)) for part in parts]
        for part, some, names in zip(parts, images.split(own), labels.split(own), strict=True):
            embeddings = self.embed(some)  # (b, D)
            names = names.to(self.device, non_blocking=True)
            embeddings, names = self.gather(embeddings, names, size=len(part))
            # a part counts by its size: the gradients add up to those of the whole batch
            loss = self.head(embeddings, names) * (len(part) / len(batch))
            self.scaler.scale(loss).backward()
            total += loss.item()
        self.check(total)
        self.add_gradients()
        self.scaler.unscale_(self.optimiser)  # fp16: the norm to clip is the true one
        if self.config.clip:
            nn.utils.clip_grad_norm_(self.weights, self.config.clip)
        self.step()
        return total

    def embed(self, images: Tensor) -> Tensor:
        """Forward: (b, 3, S, S) to (b, D), with what the backward pass needs."""
        trained = self.config.rates != "frozen"
        with autocast(self.precision, self.device), torch.set_grad_enabled(trained):
            return self.forward(images.to(self.device, non_blocking=True))

    def check(self, loss: float) -> None:
        """ValueError: the loss is no number; the images of the batch are told in a file."""
        if math.isfinite(loss):
            return
        told = ""
        if self.cache:
            file = self.folder / "not_finite.json"
            rows = self.batches[self.done][:, 2].tolist()
            seen = [str(self.images.files[row]) for row in rows]
            facts = {"step": self.done + 1, "loss": str(loss), "images": seen}
            self.write(lambda: write_json(file, facts))
            told = f"; the images of its batch are in {file}"
        raise ValueError(
            f"fine-tuning: the loss became {loss} at step {self.done + 1}, at precision "
            f"{self.precision} and top_lr {self.config.top_lr:g}; try fp32 or a lower rate{told}"
        )

    def step(self) -> None:
        """Move the weights by their gradients, then the rates and the averaged weights."""
        self.scaler.step(self.optimiser)
        scale = self.scaler.get_scale()
        self.scaler.update()
        if self.scaler.get_scale() >= scale:  # else fp16 overflowed, and no step was made
            self.schedule.step()
            if self.average is not None:
                self.average.update_parameters(self.encoder.tower)
        self.optimiser.zero_grad(set_to_none=True)

    def log(self, loss: float, rates: list[float], *, bar: tqdm) -> None:
        """Add the step to the history and to the bar."""
        seen = min(self.done * self.config.batch_size, self.config.images)
        row = {"step": self.done, "images": seen, "loss": loss}
        for group, rate in zip(self.optimiser.param_groups, rates, strict=True):
            row[f"lr_{group['name']}"] = rate
        row |= {"images_per_s": seen / self.seconds, "val_top1": math.nan}
        self.history.append(row)
        bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
        bar.update(seen - bar.n)

    def due(self) -> bool:
        """Is it time to save?  By steps, or else once a minute, and less often where saving
        takes longer than SAVING of the time."""
        if self.config.save_every:
            return self.done % self.config.save_every == 0
        return time.perf_counter() - self.saved > max(MINUTE, self.cost / SAVING)

    def save(self) -> None:
        """Write the state from which an interrupted run goes on."""
        started = time.perf_counter()
        file, facts = self.folder / "state.pt", [self.done, self.seconds, self.history]
        random = self.random
        self.write(lambda: run_cache.save(file, self.stateful, facts=facts, random=random))
        self.saved = time.perf_counter()
        self.cost = self.saved - started

    def result(self) -> Run:
        """The finished run."""
        self.encoder.name, average = finished.name(self.config), None
        if self.average is not None:
            average = finished.averaged(self.encoder, self.average.module.cpu())
        history = pd.DataFrame(self.history, columns=list(self.history[-1]))
        facts = self.plan.products, history, self.config, self.seconds, self.folder, average
        return Run(self.encoder, self.head.cpu(), *facts)

    # hooks: which images of a batch are here, and what of it has to come from elsewhere

    def own(self, part: Tensor) -> Tensor:
        """The draws of a part of a batch whose images are read here: all."""
        return part

    def gather(self, embeddings: Tensor, labels: Tensor, *, size: int) -> tuple[Tensor, Tensor]:
        """Embeddings (size, D) and labels (size,) of the whole part, from those made here."""
        return embeddings, labels

    def add_gradients(self) -> None:
        """Make the gradients those of the whole batch."""

    def alone(self) -> AbstractContextManager:
        """Inside, no other process makes this run; who waits finds it made."""
        return run_cache.locked(self.folder) if self.cache else nullcontext()

    def write(self, file: Callable[[], None]) -> None:
        """Write a file that all go on with."""
        file()

    def found(self, name: str) -> bool:
        """Is there such a file in the folder of the run?"""
        return self.cache and (self.folder / name).is_file()
