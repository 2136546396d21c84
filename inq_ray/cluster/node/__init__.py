"""What a node or worker finds out about its machine: network interface, address, shared folders, notices to leave."""
