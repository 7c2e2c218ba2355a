"""What `bootvol plugin check` runs: the contract suites, on plugins as they are configured."""
