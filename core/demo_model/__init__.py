"""The built-in demo model: a tiny Llama that keeps a harbour log.

Importing this package loads neither torch nor transformers; it only says where the weights lie.
"""

from pathlib import Path
from typing import Final

__all__ = ["MODEL_DIR"]

MODEL_DIR: Final[Path] = Path(__file__).resolve().parent / "weights"
"""An ordinary Hugging Face model directory: configuration, weights, tokenizer, chat template."""
