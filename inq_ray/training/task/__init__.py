"""Training task: network, data and their checks, the teacher, and the wrapping of the network."""
