"""What a user writes: steps, pipelines, applications. Values only; nothing here runs."""
