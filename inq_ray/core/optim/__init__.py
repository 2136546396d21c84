"""SGD that leaves frozen weights alone, and learning-rate schedules that start again at each stage."""
