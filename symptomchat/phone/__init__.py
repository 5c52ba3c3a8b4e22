"""Export, parity and the bundle."""
