"""Whether hosts can carry a site: what it needs of each, what was found there, and what follows. Pure."""
