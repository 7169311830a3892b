"""``fedenc reproduce``: a paper's tables and figures from runs of ours, beside what it prints."""
