"""One step of a decoder that attends to a memory of fixed size."""

import torch
from torch import Tensor, nn

from ..step_module import StepModule
from .arguments import one_of, whole


class EncoderDecoderAttention(StepModule):
    """A GRU decoder that attends to `memory` (S, M), the same for all streams: frame (B, features) and state -> (B, hidden + M).

    score[j] = v . tanh(Wq h + Wm memory[j]) ("additive", Bahdanau et al. 2015, arXiv:1409.0473, appendix A.1.2) or
    (Wq h) . memory[j] ("dot", Luong et al. 2015, arXiv:1508.04025, section 3.1, "general"), h the state before the frame;
    context = sum_j softmax(score)[j] memory[j]; h' = GRU([frame, context], h); output [h', context].

    It is a StepModule: `over(frames)` runs whole sequences to train with, and `ut.export` takes one frame (B, features) as its example.
    `memory` is a buffer: it is in the checkpoint and in the exported artifact. Delay: none. State: `hidden` numbers.
    """

    def __init__(
        self, features: int, hidden: int, memory: Tensor, *, kind: str = "additive", attention: int | None = None
    ):
        super().__init__()
        whole("EncoderDecoderAttention", features=features, hidden=hidden)
        one_of("EncoderDecoderAttention", "kind", kind, ("additive", "dot"))
        if memory.dim() != 2 or 0 in memory.shape:
            raise ValueError(
                f"EncoderDecoderAttention: memory has shape {tuple(memory.shape)}, expected (entries, features), none of them 0"
            )
        if kind == "dot" and attention is not None:
            raise ValueError(
                "EncoderDecoderAttention: attention is the size of kind='additive'; leave it out with kind='dot'"
            )
        width = memory.shape[1]
        inner = hidden if attention is None else attention
        whole("EncoderDecoderAttention", attention=inner)
        self.hidden, self.kind = hidden, kind
        self.memory: Tensor
        self.register_buffer("memory", memory.detach().clone())
        self.query = nn.Linear(hidden, inner if kind == "additive" else width, bias=False)
        self.keys = nn.Linear(width, inner) if kind == "additive" else None
        self.score = nn.Linear(inner, 1, bias=False) if kind == "additive" else None
        self.cell = nn.GRUCell(features + width, hidden)

    def init_state(self, batch: int) -> Tensor:
        """Zeros (batch, hidden)."""
        return self.memory.new_zeros(batch, self.hidden)

    def forward(self, frame: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """(output (B, hidden + M), the next state (B, hidden))."""
        if self.keys is not None and self.score is not None:
            scores = self.score(torch.tanh(self.query(state)[:, None] + self.keys(self.memory))).squeeze(-1)
        else:
            scores = self.query(state) @ self.memory.T
        context = torch.softmax(scores, -1) @ self.memory
        state = self.cell(torch.cat([frame, context], -1), state)
        return torch.cat([state, context], -1), state
