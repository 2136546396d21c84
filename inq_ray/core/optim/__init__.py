"""SGD that leaves frozen weights unchanged, and learning rate schedules that restart at each stage."""
