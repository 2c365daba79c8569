"""Low-rank adapters (LoRA, https://arxiv.org/abs/2106.09685). The only module that imports peft.

Worker process only. The base model's parameters are frozen, and the adapter's are trained.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import nn

from protocol.errors import UserError

EVERY_LINEAR = "all-linear"
# The kinds of layers that an error lists.
SHOWN_TARGETS = 12


def add_adapter(
    model: nn.Module, *, rank: int, alpha: float, targets: Sequence[str], dropout: float = 0.0
) -> nn.Module:
    """Return the model with an adapter in each layer whose name ends with one of `targets`.

    `("all-linear",)` means every linear layer but the output. Raises `UserError("TASK_OPTIONS")`.
    """
    wanted: str | list[str] = EVERY_LINEAR if list(targets) == [EVERY_LINEAR] else list(targets)
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=wanted,
        lora_dropout=dropout,
        bias="none",
        task_type="CAUSAL_LM",
    )
    try:
        with warnings.catch_warnings():
            # peft asks transformers in a way that it will change.
            warnings.simplefilter("ignore", FutureWarning)
            adapted: nn.Module = get_peft_model(model, config)
    except ValueError as error:
        known = sorted(
            {
                name.rpartition(".")[2]
                for name, module in model.named_modules()
                if isinstance(module, nn.Linear)
            }
        )
        raise UserError(
            "TASK_OPTIONS",
            f"The model has no layers for the adapter's targets {', '.join(targets)!r}.",
            why=f"{str(error).splitlines()[0]}; its linear layers are"
            f" {', '.join(known[:SHOWN_TARGETS])}",
            fix='name some of them in the option targets, or "all-linear"',
            exit_code=2,
        ) from None
    return adapted


def is_adapted(model: nn.Module) -> bool:
    """Return whether the model has an adapter."""
    return isinstance(model, PeftModel)


def merged(model: nn.Module) -> nn.Module:
    """Return a copy of the base model with the adapter added to its weights."""
    plain: nn.Module = copy.deepcopy(model).merge_and_unload()  # type: ignore[operator]
    return plain


@contextmanager
def computing_merged(model: nn.Module) -> Iterator[None]:
    """Let the model compute with the weights of `merged` inside the block.

    Afterwards every tensor is the same as before. To subtract the adapter from its weights again
    would round them.
    """
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    weights = [layer.get_base_layer().weight for layer in layers]
    kept = [weight.data for weight in weights]
    try:
        for weight, data in zip(weights, kept, strict=True):
            weight.data = data.clone()
        model.merge_adapter()  # type: ignore[operator]
        yield
    finally:
        for layer, weight, data in zip(layers, weights, kept, strict=True):
            weight.data = data
            layer.merged_adapters.clear()


def save_adapter(model: nn.Module, folder: Path) -> None:
    """Write the adapter alone, as `PeftModel.from_pretrained` reads it."""
    # Without the option, peft asks Hugging Face's hub whether the base model's vocabulary grew.
    model.save_pretrained(folder, save_embedding_layers=False)  # type: ignore[operator]
