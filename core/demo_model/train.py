"""Train the demo model, in two stages.

    python -m semantic_parrot.core.demo_model.train --out FIRST
    python -m semantic_parrot.core.demo_model.train --stage 2 --start FIRST --out SECOND

The first learns the tasks from nothing, short reports before long ones; the second goes on with long ones.
"""

import argparse
import math
import random
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers import GenerationConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from semantic_parrot.core.demo_model import world
from semantic_parrot.core.demo_model.batches import IGNORED, Batch, Conversations
from semantic_parrot.core.demo_model.evaluate import Evaluator
from semantic_parrot.core.demo_model.model import new_model
from semantic_parrot.core.demo_model.stages import STAGES, Stage
from semantic_parrot.core.demo_model.tokenizer import VOCAB_SIZE, build

ROWS: Final = 8
LENGTH: Final = 512  # the longest single turn, a merge of 16 with a system message, is about 420
MATRIX_RATE: Final = 4e-3
EMBEDDING_RATE: Final = 1e-3  # faster, and what all names have in common drowns what tells them apart
WARM_UP: Final = 30
TOKENIZER_SEED: Final = 0
EVALUATION_SEED: Final = world.HELD_OUT_SEEDS.start + 7


def optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers (it learns to copy in fewer steps), AdamW for the rest."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    inner = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in inner]
    return [
        torch.optim.Muon(matrices, lr=MATRIX_RATE, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=EMBEDDING_RATE, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]


def rate(step: int, steps: int) -> float:
    """Share of the peak rate: linear warm-up, then a cosine to a fiftieth."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
    return min(1.0, (step + 1) / WARM_UP) * (0.02 + 0.98 * cosine)


def most_entries(step: int) -> int:
    """Reports of one entry first, one more every 20 steps: where to look is easier to find in short texts."""
    return min(world.MAX_MERGE, 1 + max(0, step - 40) // 20)


def loss_of(model: LlamaForCausalLM, batch: Batch) -> torch.Tensor:
    """Cross-entropy of the assistant's tokens; the head runs on those alone."""
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.model(
            input_ids=batch.tokens,
            position_ids=batch.positions,
            attention_mask=batch.mask,
            use_cache=False,
        ).last_hidden_state
        wanted = batch.labels[:, 1:]
        kept = wanted != IGNORED
        logits = model.lm_head(hidden[:, :-1][kept])
    return torch.nn.functional.cross_entropy(logits.float(), wanted[kept])


def train(model: LlamaForCausalLM, data: Conversations, stage: Stage, console: Console) -> None:
    """Optimise in place.

    Raises:
        ValueError: the stage would draw from seeds that are kept for measuring.
    """
    seeds = range(stage.first_seed, stage.first_seed + stage.steps)
    if seeds.start not in world.TRAIN_SEEDS or seeds.stop not in world.TRAIN_SEEDS:
        raise ValueError(f"{seeds} is not within {world.TRAIN_SEEDS}")
    groups = [(optimizer, optimizer.param_groups[0]["lr"]) for optimizer in optimizers(model)]
    columns = (
        TextColumn("step"),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    average = math.log(VOCAB_SIZE)
    model.train()
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("train", total=stage.steps, loss=average)
        for step, seed in enumerate(seeds):
            most = most_entries(step) if stage.from_short else world.MAX_MERGE
            batch = data.batch(random.Random(seed), ROWS, LENGTH, most)
            loss = loss_of(model, batch)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer, peak in groups:
                optimizer.param_groups[0]["lr"] = peak * stage.peak * rate(step, stage.steps)
                optimizer.step()
                optimizer.zero_grad()
            average += 0.05 * (loss.item() - average)
            progress.update(bar, advance=1, loss=average)
            if (step + 1) % 50 == 0:
                console.log(f"step {step + 1} loss {average:.4f}")


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write a Hugging Face directory, weights in bfloat16."""
    model.to(torch.bfloat16)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=False
    )
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the demo model.")
    parser.add_argument("--out", type=Path, required=True, help="directory to write")
    parser.add_argument("--stage", type=int, choices=list(STAGES), default=1)
    parser.add_argument("--start", type=Path, help="directory to go on from; required by stage 2")
    parser.add_argument("--steps", type=int, help="fewer steps than the stage has, for a trial")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--examples", type=int, default=200, help="held-out examples per task")
    options = parser.parse_args()
    if (options.stage == 1) != (options.start is None):
        parser.error("--start goes with --stage 2")

    console = Console()
    stage = STAGES[options.stage]
    stage = replace(stage, steps=options.steps or stage.steps)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    if options.start is None:
        tokenizer = build(TOKENIZER_SEED)
        model = new_model(tokenizer)
    else:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(options.start)
        model = LlamaForCausalLM.from_pretrained(options.start, dtype=torch.float32)
    began = time.monotonic()
    train(model, Conversations(tokenizer, stage.mixture), stage, console)
    console.log(f"{stage.steps} steps in {time.monotonic() - began:.0f} s")
    save(model, tokenizer, options.out)

    evaluator = Evaluator(options.out)  # what is measured is what is shipped: read back, rounded
    for task in world.TASKS:
        score = evaluator.score(task, EVALUATION_SEED, options.examples)
        console.log(f"{task:10} {score.right}/{score.total} = {score.exact_match:.3f}")
        if score.miss:
            console.log(score.miss, markup=False)


if __name__ == "__main__":
    main()
