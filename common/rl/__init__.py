"""Learning on tensors: no files, no environments, no plots."""
