"""Fine-tuning (paper §4.1): balanced draws, encoder and ArcFace, AdamW, block-wise rates.

Axes: B images of an optimiser step, b of them in this process, S pixels a side, D numbers
per embedding.  On a CPU a run is a function of its config and images, to the bit for
one number of threads, whatever the workers and however often it was interrupted; on a
GPU kernels may add in another order.  Several processes are torchrun's (`distributed`).
"""

from __future__ import annotations

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
from klip.data.catalogue import Catalogue
from klip.finetuning import distributed, finished, prepare, run_cache
from klip.finetuning.finished import Run
from klip.finetuning.validation import Held, validate
from klip.model import blocks, encoder as encoders, heads
from klip.model.device import at_work, autocast
from klip.model.encoder import Encoder
from klip.settings.config import FinetuneConfig


def finetune(
    config: FinetuneConfig,
    catalogue: Catalogue,
    validation: Catalogue | None = None,
    progress: bool = True,
    cache: bool = True,
    base: Encoder | None = None,
) -> Run:
    """Fine-tune `config.model` on the split `train`, seeing `config.images` images.

    base: an encoder to start from; `config.model` then only names it; it is not changed.
    validation: see `Catalogue.held_out`.  A column `group` is the hierarchy of the triplet loss.
    cache: keep the run under CACHE/runs, find it there, go on with an interrupted one.
    Within a torch.distributed group the processes share each batch (`batch_size` is that
    of all), and all return the same run; their number changes it by rounding.
    ValueError: wrong settings, a product without images, a damaged image, a loss not finite.
    """
    base = prepare.encoder_of(config, base)
    plan = prepare.plan_of(config, catalogue)
    head = prepare.head_of(config, plan.products, base.dim, catalogue)
    held = catalogue.held_out(validation)
    start, folder = None, None
    if cache:
        start, folder = prepare.place(config, base, head, [plan.rows, *(held or ())])
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
    base.name = finished.name(config)
    run = loop.result(plan.products, folder)
    if folder is not None and distributed.first():
        finished.write(run, loop.precision)
    distributed.wait()  # what the first process wrote is there for all
    return run


def rate_factor(step: int, steps: int, warmup: float) -> float:
    """Of all rates at `step` from 0: a line up over `warmup` of the steps, half a cosine to 0."""
    rising = round(warmup * steps)
    if step < rising:
        return (step + 1) / (rising + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


class Loop:
    """The loop and all that it changes; encoder and head are trained in place."""

    def __init__(
        self,
        config: FinetuneConfig,
        encoder: Encoder,
        head: heads.Head,
        plan: balance.Plan,
        catalogue: Catalogue,
        held: Held | None = None,
    ) -> None:
        self.config, self.encoder, self.head, self.held = config, encoder, head, held
        self.device = encoder.device
        self.precision = prepare.step_precision(config, encoder, self.device)
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
        self.optimiser = prepare.optimiser_of(config, encoder.tower, head)
        self.weights = [w for group in self.optimiser.param_groups for w in group["params"]]
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimiser, lambda step: rate_factor(step, len(self.batches), config.warmup)
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        self.forward = torch.compile(encoder) if config.compile else encoder
        self.stateful = {"tower": encoder.tower, "head": head, "optimiser": self.optimiser}
        self.stateful |= {"schedule": self.schedule, "scaler": self.scaler}
        if self.average is not None:
            self.stateful["average"] = self.average
        self.done, self.seconds, self.history = 0, 0.0, list[dict[str, float]]()

    def run(self, folder: Path | None = None, progress: bool = False) -> None:
        """Train to the end of the budget, from the state in `folder` if there is one."""
        config = self.config
        state = folder / "state.pt" if folder and config.save_every else None
        if distributed.agreed(state is not None and state.is_file()):
            self.done, self.seconds, self.history = run_cache.restore(state, self.stateful)
        self.encoder.checkpointing(config.checkpointing)
        self.encoder.train()
        with self.bar(progress) as bar:
            started = time.perf_counter() - self.seconds
            for images, labels in self.fetch():
                rates = [group["lr"] for group in self.optimiser.param_groups]
                loss = self.train_step(images, labels)
                self.done += 1
                self.seconds = time.perf_counter() - started
                self.log(loss, rates, bar)
                last = self.done == len(self.batches)
                if self.held and (last or self.due(config.validate_every)):
                    top1 = validate(self.encoder, self.held, config.precision, config.workers)
                    self.history[-1]["val_top1"] = top1
                if state and not last and self.due(config.save_every) and distributed.first():
                    run_cache.save(state, self.stateful, [self.done, self.seconds, self.history])
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
            with distributed.together(self.device):  # a damaged image ends all processes
                if share:  # few images leave some processes without any
                    images, labels = next(arriving)
            yield images, labels

    def parts(self, batch: Tensor) -> tuple[Tensor, ...]:
        """The `accumulate` parts of a batch, over all processes."""
        return batch.split(math.ceil(len(batch) / self.config.accumulate))

    def train_step(self, images: Tensor, labels: Tensor) -> float:
        """One optimiser step on this process's images (b, 3, S, S) of a batch, part by part;
        their gradients add up to the batch's.  Returns the loss of the whole batch."""
        batch, total = self.batches[self.done], 0.0
        parts = self.parts(batch)
        own = [len(distributed.mine(part)) for part in parts]
        for part, some, names in zip(parts, images.split(own), labels.split(own), strict=True):
            embeddings = self.embed(some)
            names = names.to(self.device, non_blocking=True)
            # now those of all processes; the gradient stays with this one's
            embeddings, names = distributed.gathered(embeddings, names, len(part))
            loss = self.head(embeddings, names) * (len(part) / len(batch))
            if loss.requires_grad:  # not if the loss has no weights, and no image is here
                self.scaler.scale(loss).backward()
            total += loss.item()
        self.check(total)
        distributed.add_gradients(self.weights, list(self.head.parameters()))
        self.scaler.unscale_(self.optimiser)
        if self.config.clip:
            nn.utils.clip_grad_norm_(self.weights, self.config.clip)
        self.scaler.step(self.optimiser)
        scale = self.scaler.get_scale()
        self.scaler.update()
        if self.scaler.get_scale() >= scale:  # else fp16 overflowed, and no step was made
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

    def check(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise ValueError(
                f"fine-tuning: the loss became {loss} at step {self.done + 1}, at precision "
                f"{self.precision} and top_lr {self.config.top_lr:g}; try fp32 or a lower rate"
            )

    def due(self, every: int) -> bool:
        """Does what happens each `every` steps happen now?  0: never."""
        return every > 0 and self.done % every == 0

    def bar(self, progress: bool) -> tqdm:
        config = self.config
        text = f"{config.loss}, {config.rates}, depth {config.depth}, seed {config.seed}"
        seen = self.done * config.batch_size
        return tqdm(total=config.images, initial=seen, unit="img", disable=not progress, desc=text)

    def log(self, loss: float, rates: list[float], bar: tqdm) -> None:
        """Add the step to the history and to the bar."""
        seen = min(self.done * self.config.batch_size, self.config.images)
        row = {"step": self.done, "images": seen, "loss": loss}
        for group, rate in zip(self.optimiser.param_groups, rates, strict=True):
            row[f"lr_{group['name']}"] = rate
        row |= {"images_per_s": seen / self.seconds, "val_top1": math.nan}
        self.history.append(row)
        bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
        bar.update(seen - bar.n)

    def result(self, products: list[str], folder: Path | None) -> Run:
        """The finished run."""
        average = None
        if self.average is not None:
            average = finished.averaged(self.encoder, self.average.module.cpu())
        history = pd.DataFrame(self.history, columns=list(self.history[-1]))
        facts = products, history, self.config, self.seconds, folder, average
        return Run(self.encoder, self.head.cpu(), *facts)
