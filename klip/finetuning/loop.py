"""Fine-tuning (paper §4.1): balanced draws, encoder and ArcFace, AdamW with block-wise rates.

Axes: B images of an optimiser step, S pixels a side, D numbers per embedding, C products.  On a CPU a run is a function
of its config and images, to the bit for one number of threads, whatever the number of workers and however often it was
interrupted; on a GPU kernels may add in another order.  Several processes are torchrun's (`distributed`).
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from klip.data import balance
from klip.data.images import read as read_image
from klip.finetuning import distributed, run_cache
from klip.finetuning.validation import Held, held_out, validate
from klip.model import augment, blocks, encoder as encoders, heads, towers, triplet
from klip.model.device import at_work, autocast, default_device, resolve_precision
from klip.model.encoder import Encoder
from klip.model.weights import save
from klip.settings.config import FinetuneConfig
from klip.settings.files import atomic, write_tensors

HARDER = 1.5
"""Strength of the augmentation of an image that comes back within an epoch, as a factor (A)."""
CENTRE_IMAGES = 4
"""Images per product whose mean embedding is the first centre of the product (A)."""
NEUTRAL = {"workers", "save_every"}
"""Settings that change nothing in the result."""


@dataclass(frozen=True)
class Run:
    """A finished run.  head: the loss with the weights it owns; label i is products[i].  history: one row a step, of
    step, images, loss, lr_<group>, images_per_s and val_top1 (a fraction, NaN where not validated; with
    validate_every > 0, row 0 is the frozen encoder).  average: the encoder of the averaged weights, if config.ema."""

    encoder: Encoder
    head: heads.Head
    products: list[str]
    history: pd.DataFrame
    config: FinetuneConfig
    seconds: float
    path: Path | None
    average: Encoder | None = None


def finetune(
    config: FinetuneConfig,
    catalogue: pd.DataFrame,
    validation: pd.DataFrame | None = None,
    progress: bool = True,
    cache: bool = True,
    base: Encoder | None = None,
) -> Run:
    """Fine-tune `config.model` on the split `train` of the catalogue, seeing `config.images` images.

    base: an encoder to start from instead of `config.model`, which then is only its name; it is not changed.
    validation: see `held_out`.  A column `group` of the catalogue is the hierarchy of the triplet loss.
    cache: keep the run under CACHE/runs, find it there (`run_cache.folder`), take up an interrupted one (save_every).
    Within a torch.distributed group the processes share each batch (`batch_size` is that of them all), and every one
    returns the same run; on other numbers of processes it differs by rounding.
    ValueError: wrong settings, a product without images, a damaged image, a loss that is no number.
    """
    base = (
        encoders.load(config.model, config.resize, config.pixels)
        if base is None
        else copy.deepcopy(base)
    )
    if config.proj == "drop":
        encoders.drop_projection(base)
    if config.train_pixels and towers.sees_one_size(base.tower):
        raise ValueError(
            f"fine-tuning: {base.name} has a table of positions and is trained at the size it has, "
            f"{base.preprocess.size} pixels; take train_pixels 0, or another size by pixels"
        )
    if config.loss == "triplet" and (
        config.depth % 2 or config.batch_size % 2 or not config.balanced
    ):
        raise ValueError(
            "fine-tuning: the triplet loss wants pairs, so balanced draws, an even depth and an even "
            f"batch_size, got balanced {config.balanced}, {config.depth} and {config.batch_size}"
        )
    plan = balance.plan(catalogue, config.depth, config.breadth, config.seed, config.balanced)
    plan.rows.attrs["root"] = catalogue.attrs["root"]
    head, held, folder = (
        _head(config, plan.products, base.dim, catalogue),
        held_out(catalogue, validation),
        None,
    )
    device, start = default_device(), None
    precision = _precision(config, base, device)
    if cache:
        start = [encoders.fingerprint(base), precision, config.precision, device]
        facts = [config.model_dump(mode="json", exclude=NEUTRAL), *start, distributed.count()]
        facts += [
            hashlib.sha256(value.numpy().tobytes()).hexdigest() for value in head.buffers()
        ]  # the hierarchy
        folder = run_cache.folder(facts, [plan.rows, *(held or ())])
        if distributed.agreed((folder / "run.json").is_file()):
            return read(folder, config)
    gpus = [torch.cuda.current_device()] if device == "cuda" else []
    with at_work(base), torch.random.fork_rng(gpus), encoders.one_sentence():
        torch.manual_seed(config.seed)
        trainer = _Trainer(config, base, head, plan, catalogue, held, start)
        trainer.run(folder, progress and distributed.first())
    base.name, history = (
        _name(config),
        pd.DataFrame(trainer.history, columns=list(trainer.history[-1])),
    )
    average = (
        None
        if trainer.average is None
        else Encoder(
            trainer.average.module.cpu(),
            base.preprocess,
            f"{base.name}, averaged weights",
            base.arch,
            base.config,
        )
    )
    if folder is not None and distributed.first():
        facts = {
            "config": config.model_dump(mode="json"),
            "seconds": trainer.seconds,
            "precision": precision,
        }
        save(base, folder / "encoder.safetensors", **facts)
        if average is not None:
            save(average, folder / "average.safetensors", **facts)
        write_tensors(folder / "head.safetensors", head.state_dict())
        run_cache.write(folder, history, facts | {"products": plan.products})
    distributed.wait()  # what the first process wrote is there for all
    return Run(base, head.cpu(), plan.products, history, config, trainer.seconds, folder, average)


def keep(run: Run, frozen: Encoder, wise: float = 1.0) -> Path:
    """The file of what is kept of a cached run: its last weights, mixed with the frozen ones.

    wise: share of the fine-tuned weights (WiSE-FT, Wortsman et al. 2022); 1 keeps them as they are.
    ValueError: a run that was not cached, another architecture, a share outside 0 to 1.
    """
    if run.path is None:
        raise ValueError(
            "fine-tuning: only a run with a folder can be kept; call finetune with cache=True"
        )
    if wise == 1:
        return run.path / "encoder.safetensors"
    mixed = encoders.interpolate(frozen, run.encoder, wise)
    return save(
        mixed,
        run.path / f"encoder_wise_{wise:g}.safetensors",
        wise=wise,
        config=run.config.model_dump(mode="json"),
        seconds=run.seconds,
    )


def _name(config: FinetuneConfig) -> str:
    return f"{config.model} fine-tuned (depth {config.depth}, seed {config.seed})"


def _precision(config: FinetuneConfig, encoder: Encoder, device: str | torch.device) -> str:
    """That of the steps; what is only embedded, centres and validation, takes `config.precision` as it is."""
    return resolve_precision(
        config.precision, device, None if config.rates == "frozen" else encoder.tower
    )


def read(folder: Path, config: FinetuneConfig) -> Run:
    """The finished run of `config` that `folder` holds."""
    history, facts = (
        pd.read_csv(folder / "history.csv"),
        json.loads((folder / "run.json").read_text()),
    )
    encoder, average = encoders.load(folder / "encoder.safetensors"), None
    encoder.name = _name(config)
    if config.ema:
        average = encoders.load(folder / "average.safetensors")
        average.name = f"{encoder.name}, averaged weights"
    head = _head(config, facts["products"], encoder.dim)
    head.load_state_dict(run_cache.read(folder / "head.safetensors"))
    return Run(encoder, head, facts["products"], history, config, facts["seconds"], folder, average)


def _head(
    config: FinetuneConfig, products: list[str], dim: int, catalogue: pd.DataFrame | None = None
) -> heads.Head:
    """The loss; the triplet loss gets the hierarchy of the products, if the catalogue has a column `group`."""
    kin = None
    if config.loss == "triplet" and catalogue is not None and "group" in catalogue:
        groups = catalogue.drop_duplicates("product").set_index("product")["group"]
        kin = torch.from_numpy(triplet.kinship(groups.loc[products].tolist()))
    with torch.random.fork_rng([]):  # its first weights are drawn, and then replaced
        return heads.Head(
            config.loss, len(products), dim, config.margin_deg, config.scale, config.entropy, kin
        )


def rate_factor(step: int, steps: int, warmup: float) -> float:
    """The factor of all rates at `step` from 0: a line up over `warmup` of the steps, half a cosine to 0."""
    rising = round(warmup * steps)
    if step < rising:
        return (step + 1) / (rising + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


class _Draws(Dataset):
    """Item (epoch, index, row, repeat): the augmented image (3, S, S) and the label of its product."""

    def __init__(
        self,
        plan: balance.Plan,
        catalogue: pd.DataFrame,
        preprocess: augment.Preprocess,
        config: FinetuneConfig,
    ) -> None:
        self.seed, self.strength = plan.seed, config.strength
        self.preprocess = replace(preprocess, size=config.train_pixels or preprocess.size)
        self.root, self.names = Path(catalogue.attrs["root"]), catalogue["image"].tolist()
        self.at_least = self.preprocess.size if config.decode == "scaled" else 0
        self.labels = dict(
            zip(plan.rows["row"], pd.factorize(plan.rows["product"])[0].tolist(), strict=True)
        )

    def __getitem__(self, draw: tuple[int, int, int, int]) -> tuple[Tensor, int]:
        epoch, index, row, repeat = draw
        rng = np.random.default_rng((self.seed, epoch, index))
        pixels = read_image(self.root / self.names[row], self.at_least)
        strength = min(2.0, HARDER * self.strength) if repeat else self.strength
        image = augment.training(pixels, self.preprocess, rng, strength)
        return torch.from_numpy(image), self.labels[row]


class _Trainer:
    """All that changes while training, and the loop that changes it; the encoder is trained in place."""

    def __init__(
        self,
        config: FinetuneConfig,
        encoder: Encoder,
        head: heads.Head,
        plan: balance.Plan,
        catalogue: pd.DataFrame,
        held: Held | None,
        start: list | None = None,
    ) -> None:
        self.config, self.encoder, self.head, self.held, self.start = (
            config,
            encoder,
            head,
            held,
            start,
        )
        self.device, self.frozen = encoder.device, config.rates == "frozen"
        self.precision = _precision(config, encoder, self.device)
        draws = list(plan.draws(config.images, together=head.wants_pairs))
        self.batches = [
            draws[i : i + config.batch_size] for i in range(0, len(draws), config.batch_size)
        ]
        self.draws = _Draws(plan, catalogue, encoder.preprocess, config)
        if not head.wants_pairs:
            heads.initialise(head, self._means(plan))
        head.to(self.device)
        distributed.alike([*encoder.tower.state_dict().values(), *head.state_dict().values()])
        blend = get_ema_multi_avg_fn(config.ema)
        self.average = AveragedModel(encoder.tower, multi_avg_fn=blend) if config.ema else None
        self.low = blocks.freeze(encoder.tower, config.frozen_blocks)
        groups = (
            []
            if self.frozen
            else blocks.parameter_groups(
                encoder.tower, config.rates, config.top_lr, config.decay, config.weight_decay
            )
        )
        self.shared = [parameter for group in groups for parameter in group["params"]]
        self.copied = list(head.parameters())
        groups += [head.parameter_group(config.head_lr)] if self.copied else []
        self.optimiser = blocks.optimiser(groups, config.optimiser)
        self.forward = torch.compile(encoder) if config.compile else encoder
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimiser, lambda step: rate_factor(step, len(self.batches), config.warmup)
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        self.step, self.seconds, self.history = 0, 0.0, list[dict[str, float]]()

    def _means(self, plan: balance.Plan) -> Tensor:
        """Mean embedding of each product by the frozen encoder, (C, D)."""
        few = plan.rows.groupby("product").head(CENTRE_IMAGES)
        rows = self._once(
            "centres",
            [few],
            lambda: encoders.embed(
                self.encoder, few, workers=self.config.workers, precision=self.config.precision
            ),
        )
        labels = torch.as_tensor(pd.factorize(few["product"])[0])
        return torch.zeros(len(plan.products), self.encoder.dim).index_add_(0, labels, rows)

    def _once(
        self, what: str, used: Iterable[pd.DataFrame], compute: Callable[[], Tensor]
    ) -> Tensor:
        """What the frozen encoder makes of some images: the same for all runs from it, so that one computes it."""
        return (
            compute() if self.start is None else run_cache.once([what, *self.start], used, compute)
        )

    def run(self, folder: Path | None, progress: bool) -> None:
        """Train to the end of the budget, from the state in `folder` if there is one."""
        config, state = (
            self.config,
            folder / "state.pt" if folder and self.config.save_every else None,
        )
        if distributed.agreed(state is not None and state.is_file()):
            self._restore(run_cache.read(state))
        elif config.validate_every and self.held:
            frozen = self._once(
                "frozen",
                self.held,
                lambda: torch.tensor(
                    validate(self.encoder, self.held, config.precision, config.workers),
                    dtype=torch.float64,
                ),
            )
            self.history.append({"step": 0, "images": 0, "val_top1": frozen.item()})
        self.encoder.checkpointing(config.checkpointing)
        self.encoder.train()
        shares = [
            [draw for part in self._parts_of(batch) for draw in distributed.mine(part)]
            for batch in self.batches[self.step :]
        ]
        loader = DataLoader(
            self.draws,
            batch_sampler=list(filter(None, shares)),
            num_workers=config.workers,
            worker_init_fn=encoders.quiet_worker,
            pin_memory=self.device.type == "cuda",
        )
        seen, started = self.step * config.batch_size, time.perf_counter() - self.seconds
        with tqdm(
            total=config.images,
            initial=seen,
            unit="img",
            disable=not progress,
            desc=f"{config.loss}, {config.rates}, depth {config.depth}, seed {config.seed}",
        ) as bar:
            arriving = iter(loader)
            for share, batch in zip(shares, self.batches[self.step :], strict=True):
                with distributed.together(
                    self.device
                ):  # a damaged image in one process ends them all
                    images, labels = (
                        next(arriving)
                        if share
                        else (torch.empty(0), torch.empty(0, dtype=torch.long))
                    )
                rates = {
                    f"lr_{group['name']}": group["lr"] for group in self.optimiser.param_groups
                }
                loss = self._step(images, labels)
                seen += len(batch)
                self.seconds = time.perf_counter() - started
                self.history.append(
                    {
                        "step": self.step,
                        "images": seen,
                        "loss": loss,
                        **rates,
                        "images_per_s": seen / self.seconds,
                        "val_top1": math.nan,
                    }
                )
                bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
                bar.update(len(batch))
                last = self.step == len(self.batches)
                if self.held and (
                    last or config.validate_every and not self.step % config.validate_every
                ):
                    self.history[-1]["val_top1"] = validate(
                        self.encoder, self.held, config.precision, config.workers
                    )
                if (
                    state is not None
                    and self.step % config.save_every == 0
                    and not last
                    and distributed.first()
                ):
                    atomic(state, lambda part: torch.save(self._state(), part))
                started = time.perf_counter() - self.seconds  # validating and saving do not count
        self.encoder.checkpointing(False)
        self.encoder.eval()
        for parameter in self.low:  # frozen for this run only
            parameter.requires_grad_(True)

    def _parts_of(self, batch: list) -> list[list]:
        """The `accumulate` parts of a batch, over all processes; of each this process takes `distributed.mine`."""
        size = math.ceil(len(batch) / self.config.accumulate)
        return [batch[start : start + size] for start in range(0, len(batch), size)]

    def _step(self, images: Tensor, labels: Tensor) -> float:
        """One optimiser step on this process's images (b, 3, S, S) of a batch; the parts' gradients add up to it."""
        device, total, batch = self.device, 0.0, self.batches[self.step]
        parts = self._parts_of(batch)
        own = [len(distributed.mine(part)) for part in parts]
        for part, target, size in zip(
            images.split(own), labels.split(own), map(len, parts), strict=True
        ):
            with autocast(self.precision, device), torch.set_grad_enabled(not self.frozen):
                embeddings = (
                    self.forward(part.to(device, non_blocking=True))
                    if len(part)
                    else torch.zeros(0, self.encoder.dim, device=device)
                )  # (b, D)
            embeddings, target = distributed.gathered(
                embeddings, target.to(device, non_blocking=True), size
            )
            loss = self.head(embeddings, target) * (size / len(batch))
            if (
                loss.requires_grad
            ):  # else all images are another process's, and the loss has no weights
                self.scaler.scale(loss).backward()
            total += loss.item()
        if not math.isfinite(total):
            raise ValueError(
                f"fine-tuning: the loss became {total} at step {self.step + 1}, at precision "
                f"{self.precision} and top_lr {self.config.top_lr:g}; try fp32 or a lower rate"
            )
        distributed.add_gradients(self.shared, self.copied)
        self.scaler.unscale_(self.optimiser)
        if self.config.clip:
            nn.utils.clip_grad_norm_([*self.shared, *self.copied], self.config.clip)
        self.scaler.step(self.optimiser)
        scale = self.scaler.get_scale()
        self.scaler.update()
        if self.scaler.get_scale() >= scale:  # else fp16 overflowed, and the optimiser made no step
            self.schedule.step()
            if self.average is not None:
                self.average.update_parameters(self.encoder.tower)
        self.optimiser.zero_grad(set_to_none=True)
        self.step += 1
        return total

    def _parts(self) -> dict:
        parts = {
            "tower": self.encoder.tower,
            "head": self.head,
            "optimiser": self.optimiser,
            "schedule": self.schedule,
            "scaler": self.scaler,
            "average": self.average,
        }
        return {name: part for name, part in parts.items() if part is not None}

    def _state(self) -> dict:
        cuda = torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None
        return {
            "step": self.step,
            "seconds": self.seconds,
            "history": json.dumps(self.history),
            "rng": torch.get_rng_state(),
            "cuda": cuda,
            **{name: part.state_dict() for name, part in self._parts().items()},
        }

    def _restore(self, state: dict) -> None:
        self.step, self.seconds, self.history = (
            state["step"],
            state["seconds"],
            json.loads(state["history"]),
        )
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        torch.set_rng_state(state["rng"])
        if state["cuda"] is not None:
            torch.cuda.set_rng_state(state["cuda"], self.device)
