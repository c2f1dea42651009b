"""The acceptance as pure functions: what is measured, what the numbers mean, the verdict, and its report."""
