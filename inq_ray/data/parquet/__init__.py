"""Parquet in the layout of the Hugging Face hub: small images kept in memory, others read row group by row group."""
