"""NAME.inq.safetensors: a whole result as one small file. docs/format.md describes it."""
