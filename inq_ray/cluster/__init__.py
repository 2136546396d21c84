"""Ray: where workers run, what they run, and what the driver hears of them."""
