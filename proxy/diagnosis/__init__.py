"""Why calls fail: causes, differences, changes, experiments. Pure analysis of what the store holds."""
