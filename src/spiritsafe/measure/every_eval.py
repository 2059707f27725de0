"""Shares as records of the Every Eval Ever schema, version 0.3.0: one JSON file for each model and setting.

Written: shares of what is ranked, with interval and number of samples, and how answers were drawn. Not written:
differences, shares that are told and not ranked, imported figures, and single samples, since prompts may do harm.
Schema: https://github.com/evaleval/every_eval_ever.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from time import time
from typing import Any
from uuid import uuid4

from spiritsafe import __version__
from spiritsafe.errors import writing
from spiritsafe.record import Sampling, Verdict, write_json

SCHEMA = "0.3.0"


def write_every_eval(folder: Path, verdicts: Sequence[Verdict], samplings: Mapping[str, Sampling]) -> list[Path]:
    """Write `data/spiritsafe/DEVELOPER/MODEL/UUID.json` under `folder`; `samplings` are those of the tasks, by name.

    Raises `RunError` where it cannot be written.
    """
    paths = []
    ranked = [v for v in verdicts if v.detail.get("higher_is_better") is not None and "imported" not in v.detail]
    shares = [v for v in ranked if v.detail.get("said") is not False]
    for subject in dict.fromkeys(v.subject for v in shares):
        mine = [v for v in shares if v.subject == subject]
        record = _record(mine, samplings, now_s=time())
        developer, _, name = record["model_info"]["id"].partition("/")
        path = folder / "data" / "spiritsafe" / developer / name / f"{uuid4()}.json"
        with writing(path, option="--every-eval DIR"):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, record)
        paths.append(path)
    return paths


def _record(shares: Sequence[Verdict], samplings: Mapping[str, Sampling], *, now_s: float) -> dict[str, Any]:
    model = _model_info(shares[0])
    return {
        "schema_version": SCHEMA,
        "evaluation_id": f"spiritsafe/{model['id']}/{now_s:.3f}",
        "retrieved_timestamp": f"{now_s:.3f}",
        "source_metadata": {
            "source_name": "spiritsafe measure",
            "source_type": "evaluation_run",
            "source_organization_name": "unknown",
            "evaluator_relationship": "third_party",
        },
        "eval_library": {"name": "spiritsafe", "version": __version__},
        "model_info": model,
        "evaluation_results": [_result(v, samplings[v.detail["task"]]) for v in shares],
    }


def _model_info(share: Verdict) -> dict[str, Any]:
    """A model by its address; what an address does not tell is `unknown`."""
    address, setting = share.detail["model"], share.detail["setting"]
    named = address.partition("@")[0] if _is_hub(address) else f"unknown/{_plain(address)}"
    served = address.startswith("openai:")
    return {
        "name": share.subject,
        "id": named,
        "additional_details": {
            "deployment_type": "unknown" if served else "self_deployed",
            "model_availability": "unknown" if served else "open_weights",
            "address": address,
            "risk_control": setting,
        },
    }


def _is_hub(address: str) -> bool:
    return address.count("/") == 1 and ":" not in address and not address.startswith((".", "/", "~"))


def _plain(text: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in text).strip("-.")


def _result(share: Verdict, sampling: Sampling) -> dict[str, Any]:
    detail = share.detail
    low, high = share.interval or (share.value, share.value)
    return {
        "evaluation_result_id": f"{detail['task']}/{detail['metric']}",
        "evaluation_name": detail["task"],
        "source_data": {"dataset_name": detail["task"], "source_type": "other"},
        "metric_config": {
            "evaluation_description": share.claim,
            "metric_id": detail["metric"],
            "metric_name": detail["metric"].replace("_", " "),
            "metric_unit": "proportion",
            "lower_is_better": not detail["higher_is_better"],
            "score_type": "continuous",
            "min_score": 0.0,
            "max_score": 1.0,
        },
        "score_details": {
            "score": share.value,
            "details": {"saturated": str(detail["saturated"]).lower(), "limits": "; ".join(share.limits)},
            "uncertainty": {
                "confidence_interval": {
                    "lower": low, "upper": high, "confidence_level": share.confidence, "method": share.method
                },
                "num_samples": detail["items"],
            },
        },
        "generation_config": {
            "generation_args": {
                "temperature": sampling.temperature, "top_p": sampling.top_p, "max_tokens": sampling.max_tokens
            },
            "additional_details": {"seed": str(share.seed)},
        },
    }  # fmt: skip
