"""Tables and plots of README.md and docs/, out of the results."""
