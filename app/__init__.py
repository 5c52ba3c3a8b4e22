"""The chat in the browser and its pages."""
