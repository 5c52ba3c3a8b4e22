"""Tokenizer and exchange grammar."""
