"""`[decode] type = "generate"`: what a stream was given is a prompt, or a source to be translated; what it says to it are tokens."""

from typing import Annotated

import msgspec

Count = Annotated[int, msgspec.Meta(ge=1)]


class Generate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="generate"):
    """An event for each text that is generated: when the stream ends, and after each of the tokens `after`.

    Of a model that takes tokens and gives logits the stream's frames are the prompt; the text goes on from it, the next frames from the text. Of a
    model with an encoder they are the source, and the text comes when the stream ends.
    `tokens`: (T,) int64, or (T, N) of a model with N inputs, a stop token included. `text`: the labels of the tokens before the stop token, end
    to end, where the model has labels and one input. `log_probability`: of the tokens under the model. `finished`: "stop" at a stop token, "length" after
    max_steps, "broken" where the model's logits are not finite (the stream is as before, and nothing was generated).

    max_steps, temperature, top_k, top_p, repetition_penalty, min_steps, beam, length_penalty: as in `Engine.generate`.
    seed: the random numbers of a stream follow from this and from its key. stop: tokens, numbers or labels, that end a text; of a model with an
    encoder the one that it names, if not given. start: the token that a model with an encoder begins with, the one that it names if not given.
    labels: in place of the artifact's. word_separator: this in a label stands for a space in `text`; one that a text of a model with an encoder
    begins with is left out, since it goes on from nothing.
    """

    max_steps: Count
    temperature: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    top_k: Annotated[int, msgspec.Meta(ge=0)] = 0
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    repetition_penalty: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    seed: int = 0
    stop: list[int | str] | None = None
    start: Annotated[int, msgspec.Meta(ge=0)] | str | None = None
    after: list[int | str] | None = None
    min_steps: Annotated[int, msgspec.Meta(ge=0)] = 0
    beam: Annotated[int, msgspec.Meta(ge=1, le=32)] = 1
    length_penalty: Annotated[float, msgspec.Meta(ge=0)] = 0.6
    labels: list[str] | None = None
    word_separator: Annotated[str, msgspec.Meta(min_length=1)] = " "
