"""Tiny tokenizers of Hugging Face in a folder, and backbones that take them."""

from __future__ import annotations

import json

import torch
from open_clip.model import CustomTextCLIP
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

WORDS = ["a", "video", "of", "x", "person", "walking", "dog", "mask", "kicking", "quickly", "the"]
KINDS = ("t5", "bert", "gemma")
SIZE = 100
"""Words that each tokenizer knows."""
CONFIG = {
    "embed_dim": 16,
    "init_logit_bias": -10,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 32, "head_width": 16, "layers": 2},
    "text_cfg": {
        "hf_tokenizer_name": "nobody/no-such-tokenizer",
        "tokenizer_kwargs": {"clean": "canonicalize"},
        "context_length": 16,
        "vocab_size": SIZE,
        "width": 16,
        "heads": 2,
        "layers": 2,
        "no_causal_mask": True,
        "proj_bias": True,
        "pool_type": "last",
    },
    "custom_text": True,
}


def save_tokenizer(folder, kind="t5", words=WORDS):
    """Save a tokenizer: T5's (no start, an end), BERT's ([CLS], [SEP]) or Gemma's (pieces with the blank before)."""
    folder.mkdir(parents=True, exist_ok=True)
    build = {"t5": _t5, "bert": _bert, "gemma": _gemma}[kind]
    build(list(words)).save_pretrained(folder)


def add_model(monkeypatch, name="tiny-hf", **text):
    """Let open_clip know a model of this name for the length of a test; return its configuration."""
    import open_clip.factory

    config = {**CONFIG, "text_cfg": {**CONFIG["text_cfg"], **text}}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, config)
    return config


def save_weights(config, path, seed=0):
    """Save random weights of a configuration; return the model."""
    torch.manual_seed(seed)
    model = CustomTextCLIP(**{key: value for key, value in config.items() if key != "custom_text"})
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, path)
    return model


def save_text_config(folder):
    """Save the configuration of a tiny RoBERTa."""
    from transformers import RobertaConfig

    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = RobertaConfig(**sizes, vocab_size=SIZE, pad_token_id=0, max_position_embeddings=40)
    (folder / "config.json").write_text(json.dumps(config.to_dict()))


def _filled(pieces):
    """Add pieces of which no text is made."""
    return [*pieces, *(f"<{place}>" for place in range(len(pieces), SIZE))]


def _t5(words):
    vocabulary = ["<pad>", "</s>", "<unk>", "▁", "ing", "."] + [f"▁{word}" for word in [*words, "walk", "kick"]]
    vocabulary = _filled(vocabulary)
    made = Tokenizer(models.Unigram([(piece, -float(place)) for place, piece in enumerate(vocabulary)], unk_id=2))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def _gemma(words):
    letters = sorted({letter for word in words for letter in word} | {"▁"})
    merges, pieces = [], ["<pad>", "<eos>", "<unk>", *letters]
    for word in (f"▁{word}" for word in words):  # no merge makes a word that has no blank before it
        for length in range(2, len(word) + 1):
            if word[:length] not in pieces:
                merges.append((word[: length - 1], word[length - 1]))
                pieces.append(word[:length])
    vocabulary = {piece: place for place, piece in enumerate(_filled(pieces))}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>"))
    made.normalizer = normalizers.Replace(" ", "▁")
    made.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")


def _bert(words):
    vocabulary = {word: place for place, word in enumerate(_filled(["[PAD]", "[CLS]", "[SEP]", "[UNK]", ".", *words]))}
    made = Tokenizer(models.WordLevel(vocab=vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.normalizer = normalizers.BertNormalizer()
    made.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    special = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    return PreTrainedTokenizerFast(tokenizer_object=made, **special)
