"""Tokens as text: the vocabulary of a data set, and what is read by it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from elbo_lab.errors import UserError


class Text(NamedTuple):
    """How the tokens of a data set are read as text. An example of T tokens is called a poem."""

    vocabulary: str  # [V] characters in the order of their code points; token v is the v-th
    length: int  # T, characters of a poem
    line_length: int  # characters of a line of a poem; it divides T

    def encode(self, poems: Sequence[str]) -> np.ndarray:
        """Tokens of texts of one length, [n, length], int32.

        Raises:
          UserError: a character is not in the vocabulary.
        """
        tokens = {character: token for token, character in enumerate(self.vocabulary)}
        for poem in poems:
            unknown = next((c for c in poem if c not in tokens), None)
            if unknown is not None:
                raise UserError(
                    f"{poem!r} has the character {unknown!r}, which is not among the "
                    f"{len(self.vocabulary):,} characters of the text"
                )
        return np.array([[tokens[c] for c in poem] for poem in poems], np.int32)

    def decode(self, tokens: np.ndarray) -> list[str]:
        """The texts of tokens [n, T], one string of T characters for each."""
        # As objects: NumPy's own strings end at a null character.
        characters = np.array(list(self.vocabulary), object)
        return ["".join(row) for row in characters[np.asarray(tokens)]]

    def lines(self, poem: str) -> list[str]:
        """The lines of a poem, or of its beginning; the last one may be shorter then."""
        return [poem[i : i + self.line_length] for i in range(0, len(poem), self.line_length)]
