"""Run ids: `<spec name>-<6 characters>`."""

from __future__ import annotations

import os
import re

# Crockford's base 32 in lower case: without i, l, o and u nothing can be misread or spell a word.
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
SUFFIX_LENGTH = 6

RUN_ID = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,62}}-[{ALPHABET}]{{{SUFFIX_LENGTH}}}")


def new_run_id(name: str) -> str:
    """A fresh id for a run of the spec `name`: one of 2**30 for each name."""
    letters = (ALPHABET[byte % 32] for byte in os.urandom(SUFFIX_LENGTH))
    return f"{name}-{''.join(letters)}"


def is_run_id(text: str) -> bool:
    return RUN_ID.fullmatch(text) is not None
