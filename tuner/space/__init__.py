"""Search spaces: the TOML schema, sampling, and the baseline of a study."""
