"""The paper's method on tensors: codebook, partition, portions, state, one stage, and SGD with frozen weights."""
