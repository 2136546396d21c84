"""Results that the documents show: kept as small files of runs, from which tables, page and picture are made."""
