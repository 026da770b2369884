from __future__ import annotations

import io
import pickle
import pickletools
import zipfile

import pytest
import torch

from vlmodels.errors import UserError
from vlmodels.torch_archive import read_archive
from vlmodels.torch_pickle import ArchiveError
from vlmodels.weights import read_weights


class Block(torch.nn.Module):
    """As OpenAI's text blocks: half precision, a mask that is no weight, a tied weight, and plain values."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(4, 3)[:, ::2].half())
        self.tied = self.weight
        self.register_buffer("scale", torch.randn(5)[1:3])
        self.register_buffer("steps", torch.tensor(7))
        self.attn_mask = torch.full((2, 2), float("-inf"))
        self.eps, self.names, self.sizes = 1e-5, ["a"], [1, 2]

    def forward(self, x):
        return x @ self.weight.float() + self.scale.sum() + self.attn_mask.sum()


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.visual = torch.nn.Sequential(Block(), torch.nn.LayerNorm(3))
        self.text_projection = torch.nn.Parameter(torch.randn(3, 4).t())
        for name in ("input_resolution", "context_length", "vocab_size"):
            self.register_buffer(name, torch.tensor(1))

    def forward(self, x):
        return self.visual(x)


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "w.pt"
    torch.jit.save(torch.jit.script(Model()), path)
    return path


def rewrite(path, change):
    """Write an archive again, each entry as ``change(name, content)`` gives it: pairs of a name and a content."""
    with zipfile.ZipFile(path) as file:
        entries = [(entry.filename, file.read(entry)) for entry in file.infolist()]
    with zipfile.ZipFile(path, "w") as file:
        for name, content in entries:
            for pair in change(name, content):
                file.writestr(*pair)


def test_a_genuine_archive_gives_the_tensors_that_torch_gives(archive):
    expected = torch.jit.load(archive).state_dict()
    found, from_openai = read_weights(archive)
    assert from_openai
    assert found.keys() == expected.keys() - {"input_resolution", "context_length", "vocab_size"}
    assert "visual.0.scale" in found
    for name, value in found.items():
        assert torch.equal(value, expected[name].float() if expected[name].is_floating_point() else expected[name])
        assert value.dtype == (torch.int64 if name.endswith("steps") else torch.float32)
    raw, _ = read_archive(archive)
    assert raw["visual.0.weight"].dtype == torch.float16
    assert raw["visual.0.weight"].data_ptr() == raw["visual.0.tied"].data_ptr()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.uint16, torch.float8_e4m3fn, torch.bool])
def test_what_torch_saves_comes_back_bit_for_bit(tmp_path, dtype):
    values = torch.randn(6, 5).to(dtype)
    content = {"a": values, "view": values[1:4, 2:], "parameter": torch.nn.Parameter(torch.ones(2)),
               "empty": torch.zeros(0, 3), "epoch": 3, "nested": [values, {"b": values.t()}]}  # fmt: skip
    torch.save(content, tmp_path / "w.pt")
    found, torchscript = read_archive(tmp_path / "w.pt")
    expected = torch.load(tmp_path / "w.pt", weights_only=True)
    assert not torchscript
    assert found["epoch"] == 3
    for ours, theirs in [(found[k], expected[k]) for k in ("a", "view", "parameter", "empty")] + [
        (found["nested"][1]["b"], expected["nested"][1]["b"])
    ]:
        assert (ours.dtype, ours.shape, ours.stride()) == (theirs.dtype, theirs.shape, theirs.stride())
        assert torch.equal(ours, theirs)


CODE = b"class Model(Module):\n  def __setstate__(self, x):\n    print('executed')\n"


@pytest.mark.parametrize(
    "change",
    [
        lambda name, content: [(name.replace("/code/", "/CODE/"), content)],
        lambda name, content: [(name.removesuffix(".py") + ".PY" if name.endswith(".py") else name, content)],
        lambda name, content: [(name, content)] * (2 if "/code/" in name else 1),
        lambda name, content: [(name, CODE if name.endswith(".py") else content)],
        lambda name, content: [(name, content)] if "/code/" not in name else [],
        lambda name, content: [(name, content), ("w/evil.py", CODE)],
    ],
    ids=["CODE", "PY", "second entry", "other code", "no code", "more code"],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_code_in_an_archive_does_not_matter(archive, change, capfd):
    expected, _ = read_weights(archive)
    rewrite(archive, change)
    found, _ = read_weights(archive)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert "executed" not in capfd.readouterr().out


class Loads(torch.nn.Module):
    """Its tensors come back only through its own code."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.training = False

    @torch.jit.export
    def __getstate__(self):
        return self.weight, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]):
        print("executed")
        self.weight = state[0]
        self.training = state[1]

    def forward(self):
        return self.weight


@pytest.mark.parametrize("code", ["code", "CODE"])
def test_an_archive_that_needs_its_code_is_refused(tmp_path, capfd, code):
    torch.jit.script(Loads()).save(str(tmp_path / "w.pt"))
    rewrite(tmp_path / "w.pt", lambda name, content: [(name.replace("/code/", f"/{code}/"), content)])
    with pytest.raises(UserError, match=r"w\.pt .*would run code when it is loaded"):
        read_weights(tmp_path / "w.pt")
    assert "executed" not in capfd.readouterr().out


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda n, c: [(n, c)] * (2 if n.endswith("data.pkl") else 1), "2 entries data.pkl"),
        (lambda n, c: [(n, c)] * (2 if n.endswith("data/0") else 1), "2 entries data/0"),
        (lambda n, c: [(n, c)] if not n.endswith("data/0") else [], "0 entries data/0"),
        (lambda n, c: [(n, c[:-1] if n.endswith("data/0") else c)], "storage 0 has"),
        (lambda n, c: [(n, c + bytes(8) if n.endswith("data/0") else c)], "storage 0 has"),
        (lambda n, c: [(n, c[:40] if n.endswith("data.pkl") else c)], "damaged|no end"),
        (lambda n, c: [(n, b"big" if n.endswith("byteorder") else c)], "byte order"),
        (lambda n, c: [(n.replace("w/", "v/") if n.endswith("data/0") else n, c)], "0 entries data/0"),
        (lambda n, c: [(n, c), ("v/data.pkl", c)] if n.endswith("data.pkl") else [(n, c)], "2 entries data.pkl"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_damage_is_one_line(archive, change, reason):
    rewrite(archive, change)
    with pytest.raises(UserError, match=reason) as caught:
        read_weights(archive)
    assert str(archive) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_is_found(archive):
    with zipfile.ZipFile(archive) as file:
        entry = file.getinfo("w/data/0")
    content = bytearray(archive.read_bytes())
    at = content.index(b"w/data/0", entry.header_offset) + 80
    content[at] ^= 1
    archive.write_bytes(content)
    with pytest.raises(UserError, match="cannot be read as weights"):
        read_weights(archive)


def test_a_compressed_entry_is_not_unpacked(archive):
    with zipfile.ZipFile(archive) as file:
        entries = [(entry.filename, file.read(entry)) for entry in file.infolist()]
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in entries:
            file.writestr(name, bytes(50_000_000) if name.endswith("data/0") else content)
    with pytest.raises(UserError, match="compressed, or larger"):
        read_weights(archive)


def save_pickle(path, code, storage=bytes(16)):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("w/data.pkl", code)
        file.writestr("w/data/0", storage)


def tensor(offset=0, size=(4,), stride=(1,), elements=4, key="0", kind="FloatStorage"):
    """Return the pickle of ``{"w": tensor}`` as torch writes it, with any numbers."""

    class Named(pickle._Pickler):
        def save(self, obj, save_persistent_id=True):
            if obj is Named:
                self.write(b"ctorch\n" + kind.encode() + b"\n")
            elif obj is Block:
                self.write(b"ctorch._utils\n_rebuild_tensor_v2\n")
            elif obj is Model:
                super().save(("storage", Named, key, "cpu", elements))
                self.write(pickle.BINPERSID)
            else:
                super().save(obj)

    file = io.BytesIO()
    Named(file, 2).save([("arguments", Model, offset, size, stride)][0][1:])
    call = b"ctorch._utils\n_rebuild_tensor_v2\n" + file.getvalue() + b"R"
    return b"\x80\x02}X\x01\x00\x00\x00w" + call + b"s."


def test_the_handmade_pickle_is_a_whole_one(tmp_path):
    save_pickle(tmp_path / "w.pt", tensor(), torch.arange(4.0).numpy().tobytes())
    assert torch.equal(read_weights(tmp_path / "w.pt")[0]["w"], torch.arange(4.0))


@pytest.mark.parametrize(
    "numbers",
    [
        {"size": (5,)},
        {"offset": 1},
        {"offset": -1},
        {"stride": (2,)},
        {"stride": (-1,)},
        {"stride": (1, 1)},
        {"size": (10**9,), "stride": (0,)},
        {"size": (10**9,) * 8, "stride": (0,) * 8},
        {"size": (0, 10**15), "stride": (1, 1)},
        {"size": (1,) * 17, "stride": (1,) * 17},
        {"size": ("4",)},
        {"size": (True,)},
        {"size": 4},
        {"elements": 10**15},
        {"elements": -4},
        {"elements": 5},
        {"elements": "4"},
        {"key": "../data.pkl"},
        {"key": 0},
        {"kind": "QInt8Storage"},
        {"kind": "ComplexFloatStorage"},
        {"kind": "load"},
    ],
)
def test_shapes_beyond_the_storage_are_refused(tmp_path, numbers):
    save_pickle(tmp_path / "w.pt", tensor(**numbers))
    with pytest.raises(UserError, match=r"w\.pt (cannot be read as weights|holds)"):
        read_weights(tmp_path / "w.pt")


NESTED = b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."


@pytest.mark.parametrize(
    "code",
    [
        b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.",
        b"\x80\x02ctorch._utils\n_import_dotted_name\nX\x02\x00\x00\x00os\x85R.",
        b"\x80\x02c__builtin__\nbytearray\n\x8a\x06\x00\x00\x00\x00\x00\x01\x85R.",
        b"\x80\x02ctorch\nTensor\n\x8a\x06\x00\x00\x00\x00\x00\x01\x85R.",
        b"\x80\x02}r\xff\xff\xff\xff.",
        b"\x80\x02]q\x00h\x00a.",
        b"\x80\x02}q\x00X\x01\x00\x00\x00wh\x00s.",
        b"\x80\x02" + b")" + b"\x85" * 100_000 + b"q\x00}h\x00Ns.",
        NESTED,
        b"\x80\x02h\x07.",
        b"\x80\x02.",
        b"\x80\x02t.",
        b"\x80\x02R.",
        b"",
    ],
)
def test_pickles_of_other_content_run_nothing(tmp_path, code):
    save_pickle(tmp_path / "w.pt", code)
    with pytest.raises(UserError) as caught:
        read_weights(tmp_path / "w.pt")
    assert len(str(caught.value)) < 500 + len(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_modules_that_hold_each_other_end(tmp_path):
    module = b"c__torch__\nM\n)\x81q\x00}X\x01\x00\x00\x00ah\x00sb."
    pickletools.dis(module, out=io.StringIO())
    save_pickle(tmp_path / "w.pt", b"\x80\x02" + module)
    with pytest.raises(ArchiveError, match="too many parts"):
        read_archive(tmp_path / "w.pt")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_values_that_are_not_finite_are_refused(tmp_path, name, value):
    from safetensors.torch import save_file

    tensors = {"a": torch.ones(3), "b": torch.tensor([1.0, value])}
    (save_file if name.endswith("safetensors") else torch.save)(tensors, tmp_path / name)
    with pytest.raises(UserError, match="not finite, in b"):
        read_weights(tmp_path / name)
