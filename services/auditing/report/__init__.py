"""The audit as a page: HTML that a caseworker reads without help, prints, and files with the evidence."""
