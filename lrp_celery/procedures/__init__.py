"""Long-running procedures: a task whose calls can be asked for, waited for, aborted and removed (seed 000)."""
