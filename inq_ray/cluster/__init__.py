"""Ray: placement of workers, their training function, and communication with the driver."""
