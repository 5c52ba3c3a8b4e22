"""Training, distillation, pruning and calibration."""
