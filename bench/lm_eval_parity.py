"""Scores beside lm-evaluation-harness's on the same model, prompts and settings: TruthfulQA MC1, MC2 and GSM8K.

`python -m bench.lm_eval_parity [--json] [--seed N]`, with `lm_eval` installed. The model is SmolLM2, its weights and
tokenizer handed to lm-evaluation-harness as they are; 100 items each, picked by the seed; the chat template on;
TruthfulQA's own task files over the published rows; GSM8K zero-shot, greedy, 256 tokens, its flexible filter. `ours`
and `theirs` are the means; `largest_difference` is over items. Not covered: models without a chat template.
"""

import json
import os
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench._schema import Row, main, note
from spiritsafe.measure.harness import Plan, chosen
from spiritsafe.measure.harness import measure as measure_models
from spiritsafe.measure.registry import find_task
from spiritsafe.measure.task import Item
from spiritsafe.models import open_model

DATA = os.environ.get("SPIRITSAFE_DATA", "../shared/data")
ITEMS, TOKENS = 100, 256
NAMES = ("truthfulqa-mc1", "truthfulqa-mc2", "gsm8k")
MC = """
task: {task}
dataset_path: json
dataset_kwargs: {{data_files: {{validation: {file}}}}}
output_type: multiple_choice
validation_split: validation
num_fewshot: 0
doc_to_text: "{{{{text}}}}"
doc_to_target: 0
doc_to_choice: "{{{{mc_targets.choices}}}}"
{process}
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""
GSM8K = """
task: {task}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
output_type: generate_until
test_split: test
num_fewshot: 0
doc_to_text: "{{{{text}}}}"
doc_to_target: "{{{{target}}}}"
generation_kwargs: {{until: ["<|im_end|>"], do_sample: false, max_gen_toks: {tokens}}}
filter_list:
  - name: flexible-extract
    filter:
      - {{function: regex, group_select: -1, regex_pattern: "(-?[$0-9.,]{{2,}})|(-?[0-9]+)"}}
      - {{function: take_first}}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true, regexes_to_ignore: [",", "\\\\$", "\\\\.$"]}}
"""


def measure(seed: int) -> Sequence[Row]:
    """Both sides on the same items."""
    model: Any = open_model("smollm2")
    peer, rows = f"lm-eval {version('lm_eval')}", []
    for name in NAMES:
        task, plan = find_task(name), Plan(data=DATA, limit=ITEMS, seed=seed, answer_tokens=TOKENS)
        items = chosen(task, DATA, limit=ITEMS, seed=seed)
        with tempfile.TemporaryDirectory() as folder:
            (cell,) = measure_models([model], [task], Path(folder), plan).cells
            theirs = _theirs(model, name, items, Path(folder))
        ours = [float(outcome) for outcome in cell.outcomes]
        apart = [abs(a - b) for a, b in zip(ours, theirs, strict=True)]
        means = sum(ours) / ITEMS, sum(theirs) / ITEMS
        note(f"{name}: ours {means[0]:.4f}, theirs {means[1]:.4f}, {sum(d > 0.5 for d in apart)} items apart")
        ratio = 1.0 if means[0] == means[1] else means[0] / max(means[1], 1 / ITEMS)
        rows.append(Row(name, cell.metric, means[0], peer, means[1], ratio, n=ITEMS))
        rows.append(Row(name, "largest_difference", max(apart), n=ITEMS))
    return rows


def _theirs(model: Any, name: str, items: Sequence[Item], folder: Path) -> list[float]:
    """lm-evaluation-harness's score of each item, in order."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    file, task = folder / "items.jsonl", f"spiritsafe_{name.replace('-', '_')}"
    file.write_text("".join(json.dumps(_row(name, item)) + "\n" for item in items))
    form = GSM8K if name == "gsm8k" else MC
    process = "process_results: !function parity.process_results_mc2" if name.endswith("mc2") else ""
    (folder / "parity.py").write_text("from lm_eval.tasks.truthfulqa.utils import process_results_mc2\n")
    (folder / f"{task}.yaml").write_text(form.format(task=task, file=file, process=process, tokens=TOKENS))
    held = HFLM(pretrained=model.model, tokenizer=model.tokenizer, batch_size=32)
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    found: Any = simple_evaluate(
        held, tasks=[task], task_manager=manager, apply_chat_template=True, log_samples=True, bootstrap_iters=0
    )
    metric = "exact_match" if name == "gsm8k" else "acc"
    samples = sorted(found["samples"][task], key=lambda sample: sample["doc_id"])
    return [float(sample[metric]) for sample in samples]


def _row(name: str, item: Item) -> dict[str, Any]:
    row: dict[str, Any] = {"text": item.messages[-1].content, "target": item.target}
    if name != "gsm8k":
        choices = list(item.detail["choices"])
        labels = [int(i < item.detail["true"]) for i in range(len(choices))]
        row |= {"mc_targets": {"choices": choices}, "mc2_targets": {"labels": labels}}
    return row


if __name__ == "__main__":
    main("lm_eval_parity", measure)
