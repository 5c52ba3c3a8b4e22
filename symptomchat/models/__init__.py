"""The prefix language model and its pretrained start."""
