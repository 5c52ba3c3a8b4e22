"""Helpers of the chat: what it keeps, what it shows, what it lets a person take away."""
