"""Trees that labelling tools and trainers write, a module for each format: `xray.datasets.sources.tree` chooses."""
