"""Text as numbers: byte pairs of English and French together, learned from the training pairs alone by sentencepiece."""

import io
from collections.abc import Iterable, Sequence

import sentencepiece

PAD, UNKNOWN, START, END = 0, 1, 2, 3
SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # how sentencepiece writes one
HOLDERS = ("{1}", "{2}", "{3}")  # placeholders are pieces of their own


class Pieces:
    """encode: text -> piece numbers; decode: the way back. model: what sentencepiece learned, as it writes it to a file."""

    def __init__(self, model: bytes):
        self.model = model
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)

    def __len__(self) -> int:
        return self._processor.get_piece_size()

    @classmethod
    def learned(cls, texts: Iterable[str], size: int) -> "Pieces":
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            vocab_size=size,
            model_type="bpe",
            character_coverage=0.9995,
            normalization_rule_name="identity",
            user_defined_symbols=list(HOLDERS),
            pad_id=PAD,
            unk_id=UNKNOWN,
            bos_id=START,
            eos_id=END,
            num_threads=1,
            minloglevel=2,
        )
        return cls(model.getvalue())

    def encode(self, text: str, vary: float = 0.0) -> list[int]:
        """The pieces of a text, without START and END. vary: how often another way of cutting it is drawn, to train on."""
        if vary:
            return self._processor.encode(text, enable_sampling=True, alpha=vary)
        return self._processor.encode(text)

    def decode(self, pieces: Sequence[int]) -> str:
        return self._processor.decode([int(piece) for piece in pieces])

    @property
    def labels(self) -> list[str]:
        """Every piece as it is written; put end to end, with a space for each SPACE, they are the text behind one space."""
        known = [self._processor.id_to_piece(i) for i in range(len(self))]
        known[UNKNOWN] = self._processor.decode([UNKNOWN])
        return known
