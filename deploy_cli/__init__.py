"""deployctl: from bare GPU servers to an accepted LLM service with one command."""
