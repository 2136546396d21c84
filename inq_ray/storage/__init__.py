"""Paths and addresses (s3://, gs://, hdfs://): file systems, retries, and the fence around a folder."""
