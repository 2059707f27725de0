"""A server of vLLM's wire format, with a real model behind it, draws with the student's newest weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from spiritsafe.errors import EndpointError
from spiritsafe.guard.server import serving
from spiritsafe.make.rollout.engine import Rollout
from spiritsafe.make.rollout.server import ServedRollout
from spiritsafe.models import endpoint
from tests.models.decoding.architectures import END, tiny

PROMPTS, SEEDS = [(5, 6, 7), (9, 2)], [1, 2, 3, 4]


class Server:
    """Answers `/v1/completions`, takes weights and adapters from disk as vLLM documents it."""

    def __init__(self, model: Any) -> None:
        self.models = {"base": model}
        self.calls: list[str] = []

    def app(self) -> Starlette:
        """The routes."""
        handlers = {
            "/v1/completions": self.complete,
            "/v1/load_lora_adapter": self.load,
            "/v1/unload_lora_adapter": self.unload,
            "/collective_rpc": self.rpc,
            "/reset_prefix_cache": self.reset,
        }
        return Starlette(routes=[Route(path, handler, methods=["POST"]) for path, handler in handlers.items()])

    async def complete(self, request: Request) -> Response:
        """Draw with our own engine, so that a test can compare."""
        body = await request.json()
        if body["model"] not in self.models:
            return JSONResponse({"error": {"message": "no such model"}}, 404)
        rollout = Rollout(self.models[body["model"]], [END], slots=1, capacity=64, dtype="float32")
        settings = {key: body[key] for key in ("max_tokens", "temperature", "top_p")}
        answer = rollout.draw([tuple(body["prompt"])], seeds=[body["seed"]], **settings)[0]
        choice = {"logprobs": {"token_logprobs": answer.logprobs}, "finish_reason": answer.finish_reason}
        return JSONResponse({"choices": [choice | {"token_ids": answer.answer_ids}]})

    async def load(self, request: Request) -> Response:
        """A peft adapter; a name that is taken is refused."""
        from peft import PeftModel

        body = await request.json()
        self.calls.append(f"load {body['lora_name']}")
        if body["lora_name"] in self.models:
            return JSONResponse({"error": {"message": "already loaded"}}, 400)
        self.models[body["lora_name"]] = PeftModel.from_pretrained(tiny("llama"), body["lora_path"]).eval()
        return PlainTextResponse("Success: LoRA adapter added successfully.")

    async def unload(self, request: Request) -> Response:
        """Forget an adapter."""
        name = (await request.json())["lora_name"]
        self.calls.append(f"unload {name}")
        del self.models[name]
        return PlainTextResponse("Success: LoRA adapter removed successfully.")

    async def rpc(self, request: Request) -> Response:
        """`reload_weights` from a directory."""
        from transformers import AutoModelForCausalLM

        body = await request.json()
        assert body["method"] == "reload_weights"
        self.models["base"] = AutoModelForCausalLM.from_pretrained(body["kwargs"]["weights_path"])
        self.calls.append("reload")
        return JSONResponse({"results": [None]})

    async def reset(self, _: Request) -> Response:
        """Cached prefixes belong to old weights."""
        self.calls.append("reset")
        return Response()


@contextmanager
def served(student: Any, folder: Path) -> Iterator[tuple[ServedRollout, Server]]:
    """A student drawn off a server that starts with the untouched base model."""
    server = Server(tiny("llama"))
    with serving(server.app()) as url:
        yield ServedRollout(student, f"{url}/v1", "base", folder=folder, concurrency=2), server


def change(model: Any) -> None:
    """Move the weights that are trained."""
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(0.2 * torch.randn_like(weight))


def local(model: Any) -> list[Any]:
    """What the engine in this process draws."""
    rollout = Rollout(model, [END], slots=4, capacity=64, dtype="float32")
    return [a.answer_ids for a in rollout.draw(PROMPTS, seeds=SEEDS, max_tokens=12, group=2)]


def drawn(rollout: ServedRollout) -> list[Any]:
    """What the server draws."""
    return [a.answer_ids for a in rollout.draw(PROMPTS, seeds=SEEDS, max_tokens=12, group=2)]


def test_a_whole_student_is_reloaded_from_disk(tmp_path: Path) -> None:
    student = tiny("llama")
    with served(student, tmp_path / "student") as (rollout, server):
        before = drawn(rollout)
        for _ in range(2):
            change(student)
            rollout.refresh()
            assert drawn(rollout) == local(student) != before
    assert server.calls == ["reload", "reset"] * 2
    assert [path.name for path in (tmp_path / "student").iterdir()] == ["2"]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft reads it
def test_a_lora_student_is_served_as_an_adapter_under_a_new_name(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(r=4, target_modules=["q_proj", "up_proj"], init_lora_weights=False)
    student = get_peft_model(tiny("llama"), settings).eval()
    with served(student, tmp_path) as (rollout, server):
        for _ in range(2):
            change(student)
            rollout.refresh()
            assert drawn(rollout) == local(student)
    assert server.calls == ["load base-student-1", "load base-student-2", "unload base-student-1"]


def test_a_server_without_its_development_routes_is_named(tmp_path: Path) -> None:
    with serving(Starlette()) as url:
        rollout = ServedRollout(tiny("llama"), f"{url}/v1", "base", folder=tmp_path)
        with pytest.raises(EndpointError, match=r"collective_rpc: answered 404.*VLLM_SERVER_DEV_MODE=1"):
            rollout.refresh()


def test_a_server_that_returns_no_token_ids_is_refused(tmp_path: Path) -> None:
    async def complete(_: Request) -> Response:
        return JSONResponse({"choices": [{"text": "hello", "logprobs": None, "finish_reason": "stop"}]})

    with serving(Starlette(routes=[Route("/v1/completions", complete, methods=["POST"])])) as url:
        rollout = ServedRollout(tiny("llama"), f"{url}/v1", "base", folder=tmp_path)
        with pytest.raises(EndpointError, match="without token ids"):
            drawn(rollout)


def test_a_busy_server_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "pause_s", lambda *_: 0.0)
    left = [Response(status_code=503), Response(status_code=429)]
    choice = {"token_ids": [4], "logprobs": {"token_logprobs": [-0.5]}, "finish_reason": "length"}

    async def complete(_: Request) -> Response:
        return left.pop() if left else JSONResponse({"choices": [choice]})

    with serving(Starlette(routes=[Route("/v1/completions", complete, methods=["POST"])])) as url:
        rollout = ServedRollout(tiny("llama"), f"{url}/v1", "base", folder=tmp_path)
        answer = rollout.draw([(3,)], seeds=[1], max_tokens=1)[0]
    assert (answer.answer_ids, answer.logprobs, answer.finish_reason) == ((4,), (-0.5,), "length")
