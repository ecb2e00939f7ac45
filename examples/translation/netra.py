"""Netra's transliterator, trained by others: English letters to Khmer, bidirectional GRU, additive attention, GRU.

It ships in the wheel of netra-transliterate 1.0.1 (MIT, copyright 2025 Yut) as a Keras file, which is a ZIP with HDF5 inside: nothing of the
package and no Keras is needed to read it. What is particular:

- Keras keeps a GRU's gates as update, reset, candidate, torch as reset, update, candidate; with `reset_after` the formulas are the same.
- A word is padded with zeros to 25 letters, and neither the encoder nor the attention has a mask: the padding is part of what is read.
- The attention's queries and keys have no weights of their own, only a scale for each of the 64 numbers. It looks with the state *after*
  the step, and what it finds goes to the output alone, not back into the GRU; the decoder begins with zeros.
"""

import io
import pickle
import re
import sys
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import h5py
import torch
from torch import Tensor, nn

import undertow as ut

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from packages import wheel

KEPT = "khmer_transliterator/weights/"
MODEL, LETTERS = KEPT + "bi_gru_attention_khmer_transliterator.keras", KEPT + "gru_transliteration_assets.pkl"
FILES = {
    MODEL: "5f6b1af75679af1a3d56198a9035c4e70e973c99c354f0db750f5cfa13809680",
    LETTERS: "a163c7264d1a68d3d78fc9777f0f82b9bb695796faf33f63b5c16bed2204b6d9",
}
UNITS = 64


class NetraEncoder(nn.Module):
    """Letters (B, 25) -> (B, 25, 64)."""

    def __init__(self, letters: int = 28):
        super().__init__()
        self.embed = nn.Embedding(letters, 32)
        self.gru = nn.GRU(32, UNITS, batch_first=True, bidirectional=True)
        self.project = nn.Linear(2 * UNITS, UNITS)

    def forward(self, letters: Tensor) -> Tensor:
        return self.project(self.gru(self.embed(letters))[0])


class NetraDecoder(ut.DecoderModule):
    """The last Khmer character (B,), the state (B, 64) -> scores (B, 81) and the next state."""

    def __init__(self, characters: int = 81):
        super().__init__()
        self.embed = nn.Embedding(characters, 32)
        self.cell = nn.GRUCell(32, UNITS)
        self.scale = nn.Parameter(torch.ones(UNITS))
        self.out = nn.Linear(2 * UNITS, characters)

    def begin(self, encoded: Tensor) -> tuple[Tensor, Tensor]:
        return encoded, torch.zeros_like(encoded[:, 0])

    def forward(self, token: Tensor, state: Tensor, memory: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        state = self.cell(self.embed(token), state)
        energy = (self.scale * torch.tanh(state[:, None] + memory)).sum(-1)
        attention = torch.softmax(energy.masked_fill(~mask, -torch.inf), -1)
        context = (attention[:, None] @ memory)[:, 0]
        return self.out(torch.cat([state, context], -1)), state


@dataclass(frozen=True, slots=True)
class Alphabets:
    """english: letter -> number. khmer: number -> character. length: what a word is padded to."""

    english: dict[str, int]
    khmer: dict[int, str]
    length: int

    @property
    def start(self) -> int:
        return next(number for number, character in self.khmer.items() if character == "\t")

    @property
    def stop(self) -> int:
        return next(number for number, character in self.khmer.items() if character == "\n")

    def encode(self, word: str) -> list[int]:
        """The numbers of its letters a to z, then zeros; letters beyond the padded length are taken off at the word's beginning."""
        numbers = [self.english[letter] for letter in re.sub("[^a-z]", "", word.lower())][-self.length :]
        return numbers + [0] * (self.length - len(numbers))

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(self.khmer[int(token)] for token in tokens if token not in (self.start, self.stop))


def load(cache: Path | None = None) -> tuple[NetraEncoder, NetraDecoder, Alphabets]:
    """The pretrained modules, in evaluation mode, and their alphabets; fetches the wheel once."""
    folder = wheel("netra-transliterate", "1.0.1", FILES, *([cache] if cache else []))
    encoder, decoder = NetraEncoder().eval(), NetraDecoder().eval()
    with zipfile.ZipFile(folder / MODEL) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
        take(encoder, decoder, file["layers"])
    return encoder, decoder, alphabets(folder / LETTERS)


@torch.no_grad()
def take(encoder: NetraEncoder, decoder: NetraDecoder, layers: Any) -> None:
    """The weights of the Keras layers, by name, into the modules."""

    def values(path: str) -> list[Tensor]:
        kept = layers[f"{path}/vars"]
        return [torch.from_numpy(kept[str(i)][()]) for i in range(len(kept))]

    encoder.embed.weight.copy_(values("embedding")[0])
    gru(encoder.gru, "_l0", values("bidirectional/forward_layer/cell"))
    gru(encoder.gru, "_l0_reverse", values("bidirectional/backward_layer/cell"))
    dense(encoder.project, values("time_distributed/layer"))
    decoder.embed.weight.copy_(values("embedding_1")[0])
    gru(decoder.cell, "", values("gru/cell"))
    decoder.scale.copy_(values("additive_attention")[0])
    dense(decoder.out, values("dense"))


def dense(layer: nn.Linear, values: list[Tensor]) -> None:
    layer.weight.copy_(values[0].T)
    layer.bias.copy_(values[1])


def gru(module: nn.Module, suffix: str, values: list[Tensor]) -> None:
    """Keras' kernel (in, 3 * units), recurrent kernel (units, 3 * units) and biases (2, 3 * units) into torch's parameters."""
    kernel, recurrent, biases = values
    for name, value in (
        ("weight_ih", kernel.T),
        ("weight_hh", recurrent.T),
        ("bias_ih", biases[0]),
        ("bias_hh", biases[1]),
    ):
        update, reset, candidate = value.chunk(3)
        getattr(module, name + suffix).copy_(torch.cat([reset, update, candidate]))


class TablesOnly(pickle.Unpickler):
    """Reads the two tokenizers' tables and can call nothing else of what the file may name."""

    class Table:
        def __setstate__(self, state: dict[str, Any]) -> None:
            self.word_index = state["word_index"]

    ALLOWED: ClassVar = {
        ("keras.src.legacy.preprocessing.text", "Tokenizer"): Table,
        ("collections", "OrderedDict"): OrderedDict,
        ("collections", "defaultdict"): defaultdict,
        ("builtins", "int"): int,
    }

    def find_class(self, module_name: str, global_name: str) -> Any:
        if (module_name, global_name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"the alphabets name {module_name}.{global_name}, which is no table; refused")
        return self.ALLOWED[module_name, global_name]


def alphabets(path: Path) -> Alphabets:
    with path.open("rb") as file:
        kept = TablesOnly(file).load()
    khmer = {number: character for character, number in kept["khm_tokenizer"].word_index.items()}
    return Alphabets(kept["eng_tokenizer"].word_index, khmer, kept["max_eng_len"])
