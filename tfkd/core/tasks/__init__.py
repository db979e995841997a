"""What a label means: a file a task."""
