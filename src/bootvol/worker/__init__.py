"""The work that callers ask for: claims, lanes, jobs, and the tasks that jobs run."""
