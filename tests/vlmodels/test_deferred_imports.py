"""What is deferred changes no number, and is whole once it is needed; in processes, as imports happen once."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import subprocess
import sys

import pytest

TRAIN = """
import hashlib, json, os, sys
if "plain" in sys.argv:
    import torch._dynamo, timm, transformers.utils
import vlmodels
import torch
import torch.distributed as dist
from torchvision import tv_tensors
from torchvision.transforms import v2
from torch.nn.parallel import DistributedDataParallel

def is_loaded():
    parts = ("torch._dynamo.eval_frame", "timm.models", "transformers.utils")
    return [name for name in parts if name in sys.modules]

with torch.device("meta"):
    assert torch.nn.Linear(3, 4)(torch.randn(2, 3)).shape == (2, 4)
    assert torch.cat([torch.randn(2, 3, 4)] * 2).sum((0, 1), keepdim=True).stride() == (4, 4, 1)
    assert torch.nn.Conv2d(3, 8, 3)(torch.empty(2, 3, 9, 9)).shape == (2, 8, 7, 7)
    try:
        torch.randn(2, 3) @ torch.randn(2, 3)
    except RuntimeError as error:
        mistake = str(error)
    try:
        torch._check(False, lambda: "a check of its own")
    except RuntimeError as error:
        mistake += str(error)
torch.manual_seed(0)
method_class = vlmodels.get_method("st_adapter")
method = method_class(vlmodels.create("toy", weights="toy", num_frames=4), method_class.Config())
method.set_classes(["walking", "clapping", "jumping"])
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
model = DistributedDataParallel(method)
optimizer = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=1e-3)
digest, losses = hashlib.sha256(), []
augment = v2.Compose([v2.RandomHorizontalFlip(0.5), v2.ColorJitter(0.4, 0.4), v2.MixUp(num_classes=3)])
for _ in range(3):
    views, labels = augment(tv_tensors.Video(torch.rand(2, 4, 3, 48, 48)), torch.tensor([0, 2]))
    loss = torch.nn.functional.cross_entropy(model(views.as_subclass(torch.Tensor)).logits, labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
    for parameter in method.parameters():
        if parameter.requires_grad:
            digest.update(parameter.grad.numpy().tobytes() + parameter.detach().numpy().tobytes())
state = optimizer.state_dict()
optimizer.load_state_dict(state)
dist.destroy_process_group()
loaded = is_loaded()
"""
COMPILE = """
x = torch.randn(5, 8)
layer = torch.nn.Linear(8, 8)
eager = torch.relu(layer(x)).sum()
compiled = torch.compile(lambda v: torch.relu(layer(v)).sum(), backend="aot_eager", fullgraph=True)
assert torch.allclose(compiled(x), eager)
import torch._dynamo.config
from torchvision.ops import misc  # noqa: F401
assert torch._dynamo.config is torch._dynamo.eval_frame.config
assert torch._dynamo is sys.modules["torch._dynamo"] and type(torch._dynamo) is type(sys)
assert sys.modules["torchvision.ops.roi_align"].is_compile_supported is torch._dynamo.utils.is_compile_supported

# What training used must be disabled now: torch would trace into it.
from torch._dynamo.testing import CompileCounter
torch._dynamo.mark_dynamic(grown := torch.randn(6, 8), 0)  # a symbolic size, which torch's checks look at
assert torch.compile(lambda v: (torch._check(v.shape[0] > 2), v * 2)[1], backend="aot_eager")(grown).shape == (6, 8)
counter = CompileCounter()
@torch.compile(backend=counter)
def step(v):
    loss = (v * 3).sum()
    optimizer.state_dict()
    return loss * 2
step(x)
flipping = CompileCounter()
image = tv_tensors.Image(torch.rand(3, 8, 8))
flipped = torch.compile(lambda i: v2.functional.horizontal_flip(i * 2) + 1, backend=flipping)(image)
assert torch.equal(flipped, v2.functional.horizontal_flip(image * 2) + 1)
wrapped = torch.optim.Optimizer.state_dict.__wrapped__
disabled = getattr(wrapped, "__dynamo_disable")
assert disabled is not wrapped and disabled._torchdynamo_disable
"""
REPORT = """
frames = [counter.frame_count, flipping.frame_count]
found = {"loaded": loaded, "losses": losses, "digest": digest.hexdigest(), "frames": frames, "mistake": mistake}
print(json.dumps(found))
"""
TIMM = """
import sys, vlmodels, torch, open_clip
from open_clip import timm_model
assert "timm.models" not in sys.modules
tower = timm_model.TimmModel("resnet18", embed_dim=16, image_size=64, pool="abs_attn", proj="mlp", pretrained=False)
assert tower(torch.zeros(1, 3, 64, 64)).shape == (1, 16)
import timm.layers
assert timm_model.timm is timm and timm_model.Mlp is timm.layers.Mlp and timm_model.to_2tuple is timm.layers.to_2tuple
assert timm_model.AbsAttentionPool2d is timm.layers.AttentionPool2d
assert timm.__version__
"""
TRANSFORMERS = """
import sys, vlmodels, open_clip
from open_clip import coca_model, hf_model
assert "transformers.utils" not in sys.modules
assert not coca_model._has_transformers and set(coca_model.GENERATION_TYPES.values()) == {None, "beam_search"}
sizes = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=20)
from transformers import RobertaConfig
encoder = hf_model.HFTextEncoder("", 4, RobertaConfig(**sizes), "mean_pooler", "linear")
import torch, transformers
assert encoder(torch.tensor([[0, 5, 2]])).shape == (1, 4)
assert hf_model.AutoModel is hf_model.transformers.AutoModel is transformers.AutoModel
assert hf_model.BaseModelOutput is transformers.modeling_outputs.BaseModelOutput
assert hf_model.transformers.__version__ == transformers.__version__
"""
COCA = """
import open_clip.coca_model
print(open_clip.coca_model._has_transformers, open_clip.coca_model.GENERATION_TYPES)
"""


@functools.cache
def trained(*flags):
    done = subprocess.run(
        [sys.executable, "-c", TRAIN + COMPILE + REPORT, *flags], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_training_needs_none_and_computes_the_same_bits():
    deferred, plain = trained(), trained("plain")
    assert deferred["loaded"] == []
    assert "torch._dynamo.eval_frame" in plain["loaded"]
    assert deferred["losses"] == plain["losses"]
    assert deferred["digest"] == plain["digest"]
    assert deferred["mistake"] == plain["mistake"]
    assert "a check of its own" in plain["mistake"]


def test_compiling_after_training_is_as_it_ever_was():
    assert trained()["frames"] == trained("plain")["frames"]


def test_towers_of_timm_work():
    done = subprocess.run([sys.executable, "-c", TIMM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_text_towers_of_transformers_work():
    done = subprocess.run([sys.executable, "-c", TRANSFORMERS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_captioners_have_of_transformers_what_they_have_without_this():
    codes = (COCA, f"import vlmodels\n{COCA}")
    plain, deferred = (subprocess.run([sys.executable, "-c", code], capture_output=True, check=True) for code in codes)
    assert plain.stdout == deferred.stdout


@pytest.mark.parametrize(
    ("package", "version"),
    [("torch", "2.14.1"), ("torchvision", "0.29.1"), ("open_clip_torch", "3.3.0"), ("transformers", "5.24.0")],
)
def test_the_versions_are_those_it_was_written_for(package, version):
    """After an upgrade: see who imports them now (``python -X importtime``), then set these."""
    assert importlib.metadata.version(package).split("+")[0] == version


def test_the_default_of_ddp_is_the_one_that_is_served():
    from torch._dynamo.utils import get_optimize_ddp_mode

    assert get_optimize_ddp_mode() == "ddp_optimizer"
