"""Fine-tuning (paper §4.1): balanced draws, encoder and ArcFace, AdamW, block-wise rates.

Axes: B images of an optimiser step, b of them in this process, S pixels a side, D numbers
per embedding.  On a CPU a run is a function of its config and images, to the bit for one
number of threads, whatever the number of workers and however often it was interrupted; on
a GPU kernels may add in another order.  Several processes are torchrun's (`distributed`).
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from tqdm import tqdm

from klip.data import balance
from klip.finetuning import distributed, finished, prepare, run_cache
from klip.finetuning.finished import Run
from klip.finetuning.validation import Held, held_out, validate
from klip.model import blocks, encoder as encoders, heads
from klip.model.device import at_work, autocast, default_device, resolve_precision
from klip.model.encoder import Encoder
from klip.settings.config import FinetuneConfig
from klip.settings.files import atomic

NEUTRAL = {"workers", "save_every"}
"""Settings that change nothing in the result."""


def finetune(
    config: FinetuneConfig,
    catalogue: pd.DataFrame,
    validation: pd.DataFrame | None = None,
    progress: bool = True,
    cache: bool = True,
    base: Encoder | None = None,
) -> Run:
    """Fine-tune `config.model` on the split `train`, seeing `config.images` images.

    base: an encoder to start from; `config.model` then only names it; it is not changed.
    validation: see `held_out`.  A column `group` is the hierarchy of the triplet loss.
    cache: keep the run under CACHE/runs, find it there, go on with an interrupted one.
    Within a torch.distributed group the processes share each batch (`batch_size` is that
    of all), and all return the same run; their number changes it by rounding.
    ValueError: wrong settings, no images of a product, a damaged image, a loss that is no
    number.
    """
    base = prepare.encoder_of(config, base)
    plan = prepare.plan_of(config, catalogue)
    head = prepare.head_of(config, plan.products, base.dim, catalogue)
    held = held_out(catalogue, validation)
    start, folder = None, None
    if cache:
        start, folder = _place(config, base, head, [plan.rows, *(held or ())])
        if distributed.agreed((folder / "run.json").is_file()):
            return finished.read(folder, config)
    gpus = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with at_work(base), torch.random.fork_rng(gpus), encoders.one_sentence():
        torch.manual_seed(config.seed)
        prepare.put_centres(head, base, plan, config, start)
        loop = Loop(config, base, head, plan, catalogue, held)
        if config.validate_every and held:
            top1 = prepare.frozen_top1(config, base, held, start)
            loop.history = [{"step": 0, "images": 0, "val_top1": top1}]
        loop.run(folder, progress and distributed.first())
    run = loop.result(plan.products, folder)
    if folder is not None and distributed.first():
        finished.write(run, loop.precision)
    distributed.wait()  # what the first process wrote is there for all
    return run


def _place(
    config: FinetuneConfig, base: Encoder, head: heads.Head, used: list[pd.DataFrame]
) -> tuple[list, Path]:
    """What tells the frozen encoder and how it computes, and the folder of the run."""
    device = default_device()
    precision = step_precision(config, base, device)
    start = [encoders.fingerprint(base), precision, config.precision, device]
    settings = config.model_dump(mode="json", exclude=NEUTRAL)
    hierarchy = [hashlib.sha256(value.numpy().tobytes()).hexdigest() for value in head.buffers()]
    facts = [settings, *start, distributed.count(), *hierarchy]
    return start, run_cache.folder(facts, used)


def step_precision(config: FinetuneConfig, encoder: Encoder, device: str | torch.device) -> str:
    """That of the steps; what is only embedded, centres and validation, takes
    `config.precision` as it is."""
    trained = None if config.rates == "frozen" else encoder.tower
    return resolve_precision(config.precision, device, trained)


def rate_factor(step: int, steps: int, warmup: float) -> float:
    """The factor of all rates at `step` from 0: a line up over `warmup` of the steps, then
    half a cosine down to 0."""
    rising = round(warmup * steps)
    if step < rising:
        return (step + 1) / (rising + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


class Loop:
    """All that changes while training, and the loop that changes it, encoder and head in
    place.  Public for `klip.scale.bench`, which measures this very loop."""

    def __init__(
        self,
        config: FinetuneConfig,
        encoder: Encoder,
        head: heads.Head,
        plan: balance.Plan,
        catalogue: pd.DataFrame,
        held: Held | None = None,
    ) -> None:
        self.config, self.encoder, self.head, self.held = config, encoder, head, held
        self.device = encoder.device
        self.precision = step_precision(config, encoder, self.device)
        draws = torch.tensor(list(plan.draws(config.images, together=head.wants_pairs)))
        self.batches = draws.split(config.batch_size)  # (B, 4) each, items of `images`
        self.images = prepare.Draws(plan, catalogue, encoder.preprocess, config)
        head.to(self.device)
        distributed.alike([*encoder.tower.state_dict().values(), *head.state_dict().values()])
        self.average = None
        if config.ema:
            blend = get_ema_multi_avg_fn(config.ema)
            self.average = AveragedModel(encoder.tower, multi_avg_fn=blend)
        self.low = blocks.freeze(encoder.tower, config.frozen_blocks)
        self.optimiser = self._optimiser()
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimiser, lambda step: rate_factor(step, len(self.batches), config.warmup)
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        self.forward = torch.compile(encoder) if config.compile else encoder
        self.done, self.seconds, self.history = 0, 0.0, list[dict[str, float]]()

    def _optimiser(self) -> torch.optim.Optimizer:
        """AdamW on the blocks of the tower and on the weights of the loss."""
        config, groups = self.config, []
        if config.rates != "frozen":
            ladder = config.rates, config.top_lr, config.decay, config.weight_decay
            groups = blocks.parameter_groups(self.encoder.tower, *ladder)
        self.tower_weights = [weight for group in groups for weight in group["params"]]
        self.head_weights = list(self.head.parameters())
        if self.head_weights:
            groups.append(self.head.parameter_group(config.head_lr))
        return blocks.optimiser(groups, config.optimiser)

    def run(self, folder: Path | None = None, progress: bool = False) -> None:
        """Train to the end of the budget, from the state in `folder` if there is one."""
        config = self.config
        state = folder / "state.pt" if folder and config.save_every else None
        if distributed.agreed(state is not None and state.is_file()):
            self.restore(state)
        self.encoder.checkpointing(config.checkpointing)
        self.encoder.train()
        with self.bar(progress) as bar:
            started = time.perf_counter() - self.seconds
            for images, labels in self.fetch():
                rates = {
                    f"lr_{group['name']}": group["lr"] for group in self.optimiser.param_groups
                }
                loss = self.train_step(images, labels)
                self.done += 1
                self.seconds = time.perf_counter() - started
                self.log(loss, rates, bar)
                last = self.done == len(self.batches)
                if self.held and (last or due(self.done, config.validate_every)):
                    top1 = validate(self.encoder, self.held, config.precision, config.workers)
                    self.history[-1]["val_top1"] = top1
                if state and not last and due(self.done, config.save_every):
                    self.save(state)
                started = time.perf_counter() - self.seconds  # without validating and saving
        self.encoder.checkpointing(False)
        self.encoder.eval()
        for weight in self.low:  # frozen for this run only
            weight.requires_grad_(True)

    def fetch(self) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's images (b, 3, S, S) and labels (b,) of each batch that is left."""
        shares = []
        for batch in self.batches[self.done :]:
            own = [distributed.mine(part) for part in self.parts(batch)]
            shares.append(torch.cat(own).tolist())
        loader = DataLoader(
            self.images,
            batch_sampler=[share for share in shares if share],
            num_workers=self.config.workers,
            worker_init_fn=encoders.quiet_worker,
            pin_memory=self.device.type == "cuda",
        )
        arriving = iter(loader)
        for share in shares:
            images, labels = torch.empty(0), torch.empty(0, dtype=torch.long)
            with distributed.together(self.device):  # a damaged image in one ends them all
                if share:
                    images, labels = next(arriving)
            yield images, labels

    def parts(self, batch: Tensor) -> tuple[Tensor, ...]:
        """The `accumulate` parts of a batch, over all processes."""
        return batch.split(math.ceil(len(batch) / self.config.accumulate))

    def train_step(self, images: Tensor, labels: Tensor) -> float:
        """One optimiser step on this process's images (b, 3, S, S) of a batch, part by part;
        the parts' gradients add up to the batch's.  Returns the loss of the whole batch."""
        batch, total = self.batches[self.done], 0.0
        parts = self.parts(batch)
        own = [len(distributed.mine(part)) for part in parts]
        for part, some, names in zip(parts, images.split(own), labels.split(own), strict=True):
            embeddings = self.embed(some)
            names = names.to(self.device, non_blocking=True)
            embeddings, names = distributed.gathered(embeddings, names, len(part))
            loss = self.head(embeddings, names) * (len(part) / len(batch))
            if loss.requires_grad:  # else all images are another's, and the loss has no weights
                self.scaler.scale(loss).backward()
            total += loss.item()
        if not math.isfinite(total):
            raise ValueError(
                f"fine-tuning: the loss became {total} at step {self.done + 1}, at precision "
                f"{self.precision} and top_lr {self.config.top_lr:g}; try fp32 or a lower rate"
            )
        distributed.add_gradients(self.tower_weights, self.head_weights)
        self.scaler.unscale_(self.optimiser)
        if self.config.clip:
            weights = [*self.tower_weights, *self.head_weights]
            nn.utils.clip_grad_norm_(weights, self.config.clip)
        self.scaler.step(self.optimiser)
        scale = self.scaler.get_scale()
        self.scaler.update()
        if self.scaler.get_scale() >= scale:  # else fp16 overflowed: the optimiser made no step
            self.schedule.step()
            if self.average is not None:
                self.average.update_parameters(self.encoder.tower)
        self.optimiser.zero_grad(set_to_none=True)
        return total

    def embed(self, images: Tensor) -> Tensor:
        """Forward: (b, 3, S, S) to (b, D), with what the backward pass needs."""
        if not len(images):  # they are all in other processes
            return torch.zeros(0, self.encoder.dim, device=self.device)
        trained = self.config.rates != "frozen"
        with autocast(self.precision, self.device), torch.set_grad_enabled(trained):
            return self.forward(images.to(self.device, non_blocking=True))

    def bar(self, progress: bool) -> tqdm:
        config = self.config
        text = f"{config.loss}, {config.rates}, depth {config.depth}, seed {config.seed}"
        seen = self.done * config.batch_size
        return tqdm(total=config.images, initial=seen, unit="img", disable=not progress, desc=text)

    def log(self, loss: float, rates: dict[str, float], bar: tqdm) -> None:
        """Add the step to the history and to the bar."""
        seen = min(self.done * self.config.batch_size, self.config.images)
        row = {"step": self.done, "images": seen, "loss": loss, **rates}
        row |= {"images_per_s": seen / self.seconds, "val_top1": math.nan}
        self.history.append(row)
        bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
        bar.update(seen - bar.n)

    def stateful(self) -> dict:
        """What has a state of its own, by its name in the file."""
        found = {"tower": self.encoder.tower, "head": self.head, "optimiser": self.optimiser}
        found |= {"schedule": self.schedule, "scaler": self.scaler}
        if self.average is not None:
            found["average"] = self.average
        return found

    def save(self, file: Path) -> None:
        """Write the state from which an interrupted run goes on, in the first process."""
        if not distributed.first():
            return
        state = {name: part.state_dict() for name, part in self.stateful().items()}
        state |= {"done": self.done, "seconds": self.seconds, "history": self.history}
        state["rng"] = torch.get_rng_state()
        if self.device.type == "cuda":
            state["cuda"] = torch.cuda.get_rng_state(self.device)
        atomic(file, lambda part: torch.save(state, part))

    def restore(self, file: Path) -> None:
        state = run_cache.read(file)
        for name, part in self.stateful().items():
            part.load_state_dict(state[name])
        self.done, self.seconds, self.history = state["done"], state["seconds"], state["history"]
        torch.set_rng_state(state["rng"])
        if "cuda" in state:
            torch.cuda.set_rng_state(state["cuda"], self.device)

    def result(self, products: list[str], folder: Path | None) -> Run:
        """The finished run."""
        encoder, average = self.encoder, None
        encoder.name = finished.name(self.config)
        if self.average is not None:
            name = f"{encoder.name}, averaged weights"
            tower = self.average.module.cpu()
            average = Encoder(tower, encoder.preprocess, name, encoder.arch, encoder.config)
        history = pd.DataFrame(self.history, columns=list(self.history[-1]))
        head, config, seconds = self.head.cpu(), self.config, self.seconds
        return Run(encoder, head, products, history, config, seconds, folder, average)


def due(step: int, every: int) -> bool:
    """Does what happens each `every` steps happen now?  every 0: never."""
    return every > 0 and step % every == 0
