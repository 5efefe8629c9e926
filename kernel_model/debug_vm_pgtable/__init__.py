"""The kernel's own checklist for its page-table helpers, on tables of their own and under a CPU."""
