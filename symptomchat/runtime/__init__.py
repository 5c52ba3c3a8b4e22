"""Answers from a bundle alone: numpy, ai-edge-litert and tokenizers."""
