"""An encoder and its decoder as torch itself runs them: one source at a time, without padding."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from .calling import Call
from .seq2seq_modules import Beginning, Begun, mask_of, stepped
from .seq2seq_parity import Task
from .sequences import Sequence
from .step_call import StepCall
from .stepping import Outputs


@dataclass(frozen=True, slots=True)
class Torch:
    """The modules. call: of the encoder; step: of the decoder, whose names and nesting are used alone."""

    call: Call
    beginning: Beginning
    step: StepCall
    begun: Begun

    @property
    def name(self) -> str:
        return f"torch {torch.__version__}"

    def outputs(self, tasks: list[Task]) -> Outputs:
        """What the decoder gives for each target, its source read before."""
        return [self._stepped(task) for task in tasks]

    def greedy(self, source: Sequence, output: str, first: int, steps: int) -> np.ndarray:
        """The tokens that are given to the decoder, int64 (steps,), where each is what the one before made most likely."""
        state, memory, mask = self._begin(source)
        tokens = [first]
        for _ in range(steps - 1):
            found, state = self._step([np.array(tokens[-1])], state, memory, mask)
            tokens.append(int(found[output].argmax()))
        return np.array(tokens, np.int64)

    def _stepped(self, task: Task) -> dict[str, np.ndarray]:
        state, memory, mask = self._begin(task.source)
        outs = []
        for t in range(len(next(iter(task.target.values())))):
            found, state = self._step([task.target[name][t] for name in self.step.frames], state, memory, mask)
            outs.append(found)
        return {name: np.stack([out[name] for out in outs]) for name in self.step.outputs}

    def _begin(self, source: Sequence) -> tuple[Any, Any, Any]:
        tensors = [
            torch.from_numpy(source[name][None]).to(example.device)
            for name, example in zip(self.call.input_names, self.call.example, strict=True)
        ]
        args, kwargs = self.call.arguments(tensors)
        memory, state = self.begun.nested(self.beginning.begin(args, kwargs)[2])
        return state, memory, mask_of(memory, tensors[0])

    def _step(self, frames: list[np.ndarray], state: Any, memory: Any, mask: Any) -> tuple[dict[str, np.ndarray], Any]:
        tensors = [
            torch.from_numpy(np.array(frame, _numpy(example))[None]).to(example.device)
            for frame, example in zip(frames, self.step.example, strict=True)
        ]
        out, after = stepped(self.beginning.decoder, self.step.frame_of(tensors), state, memory, mask)
        leaves = [leaf for leaf in pytree.tree_flatten(out)[0] if leaf is not None]
        return {n: leaf[0].cpu().numpy() for n, leaf in zip(self.step.outputs, leaves, strict=True)}, after


def _numpy(example: torch.Tensor) -> Any:
    return torch.zeros((), dtype=example.dtype).numpy().dtype
