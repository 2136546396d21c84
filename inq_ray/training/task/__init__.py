"""What is trained: network, data and their checks, the teacher, and how the network is wrapped."""
