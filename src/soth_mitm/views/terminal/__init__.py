"""The view of a flow store on a terminal, drawn by textual. It reads the store and nothing else."""
