"""Parquet in the layout of the Hugging Face hub: small images are kept in memory, others read by row group."""
