"""A node's facts about its machine: network interface, address, shared folders, termination notices."""
