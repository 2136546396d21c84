"""The paper on tensors: codebook, partition, portions, state, one stage, and SGD that leaves frozen weights alone."""
